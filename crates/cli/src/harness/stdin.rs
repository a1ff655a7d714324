//! A process ends when its standard input does: that is how it is told to leave, and how it notices
//! that whoever started it is gone.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// A process that is told to leave may take this long.
const LEAVING: Duration = Duration::from_secs(10);

/// Ends the process as soon as standard input ends.
pub(crate) fn exit_with_stdin() {
    thread::spawn(|| {
        wait_for_stdin();
        std::process::exit(0);
    });
}

/// Ready when standard input ends; soon after that the process ends, whatever it does.
pub(crate) fn leave_with_stdin() -> oneshot::Receiver<()> {
    let (leave, left) = oneshot::channel();
    thread::spawn(move || {
        wait_for_stdin();
        // Nobody listens: the process is ending already.
        let _ = leave.send(());
        thread::sleep(LEAVING);
        std::process::exit(1);
    });
    left
}

/// Blocks until standard input ends.
pub(crate) fn wait_for_stdin() {
    // An error means the same as the end: nobody is there any more.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
}
