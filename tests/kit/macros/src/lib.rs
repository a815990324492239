//! Attributes that stand in for `#[test]`. Each runs the test with the function of the same name in
//! mqfs-kit.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// A test in an IPC namespace of its own.
#[proc_macro_attribute]
pub fn in_own_namespace(_: TokenStream, test: TokenStream) -> TokenStream {
    run_with("in_own_namespace", test)
}

/// The same, skipped without root.
#[proc_macro_attribute]
pub fn as_root_in_own_namespace(_: TokenStream, test: TokenStream) -> TokenStream {
    run_with("as_root_in_own_namespace", test)
}

/// A test in a pid namespace of its own, skipped without root.
#[proc_macro_attribute]
pub fn as_root_in_own_pid_namespace(_: TokenStream, test: TokenStream) -> TokenStream {
    run_with("as_root_in_own_pid_namespace", test)
}

/// A test in an IPC and a mount namespace of its own, skipped where it may not mount file systems.
#[proc_macro_attribute]
pub fn as_root_with_mounts(_: TokenStream, test: TokenStream) -> TokenStream {
    run_with("as_root_with_mounts", test)
}

/// `fn name() { body }` becomes `#[test] fn name() { mqfs_kit::runner(|| { body }) }`.
fn run_with(runner: &str, test: TokenStream) -> TokenStream {
    let parse = |code: &str| code.parse::<TokenStream>().expect("valid Rust");
    let mut tokens: Vec<TokenTree> = test.into_iter().collect();
    let body = tokens.pop().expect("a function has a body");
    let closure = [parse("||"), body.into()].into_iter().collect();
    let group = |delimiter, code| TokenTree::from(Group::new(delimiter, code));
    let mut call = parse(&format!("::mqfs_kit::{runner}"));
    call.extend([group(Delimiter::Parenthesis, closure)]);
    tokens.push(group(Delimiter::Brace, call));
    [parse("#[test]"), tokens.into_iter().collect()].into_iter().collect()
}
