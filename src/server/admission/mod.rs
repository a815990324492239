//! Admission decides who the caller is and whether the server answers. It decides before any fork,
//! and looks only at the kernel's record of the reply queue and at the lease in it.

#[cfg(test)]
#[path = "../../../tests/admission/mod.rs"] // it needs the kit
mod fuzz;
mod policy;
mod refusal;
mod reply_to;

pub(super) use policy::{Admitted, Caller, Policy};
pub(super) use refusal::{Refusal, RefusalLog};
pub(super) use reply_to::ReplyTo;
