//! Stands in for the threads on which spill files are read and written, where a test has one thread and a
//! clock of its own (feature `contract`): jobs are done at once, and the test may let them fail.

use std::cell::RefCell;
use std::sync::Arc;

/// Whether the disk does a job.
pub trait Disk {
    /// Called before each job.
    ///
    /// # Errors
    /// Why the disk does not do it.
    fn turn(&self) -> Result<(), String>;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Disk>>> = const { RefCell::new(None) };
}

/// From now on, this thread does the jobs of spill files itself.
pub fn set(disk: Arc<dyn Disk>) {
    CURRENT.set(Some(disk));
}

/// What was [`set`] for this thread.
pub(super) fn current() -> Option<Arc<dyn Disk>> {
    CURRENT.with_borrow(Clone::clone)
}
