use crate::support::{in_own_namespace, program, run};

#[in_own_namespace]
fn an_urgent_message_is_received_before_all_that_filled_the_queue() {
    let shown = String::from_utf8(run(&mut program("priority")).success()).unwrap();
    assert_eq!(
        shown,
        "two-step receive: type 1 with IPC_NOWAIT, then any\n\
             \x20 sent 16 of type 10, until the queue was full, then 1 of type 1\n\
             \x20 received type 1 first, then 16 of type 10, in 33 calls\n\
             one call: msgtyp -10, the lowest type up to 10\n\
             \x20 sent 16 of type 10, until the queue was full, then 1 of type 1\n\
             \x20 received type 1 first, then 16 of type 10, in 17 calls\n"
    );
}
