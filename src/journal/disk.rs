//! A stand-in for the threads that read and write spill files, for tests with one thread and their own
//! clock (feature `contract`): jobs run immediately, and the test may make them fail.

use std::cell::RefCell;
use std::sync::Arc;

/// Decides whether the disk works.
pub trait Disk {
    /// Called before each job.
    fn before_job(&self) -> Result<(), String>;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Disk>>> = const { RefCell::new(None) };
}

/// Makes this thread run the jobs of spill files itself from now on.
pub fn set(disk: Arc<dyn Disk>) {
    CURRENT.set(Some(disk));
}

/// The disk that was [`set`] for this thread.
pub(super) fn current() -> Option<Arc<dyn Disk>> {
    CURRENT.with_borrow(Clone::clone)
}
