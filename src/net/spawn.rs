//! A handle to start tasks on the worker that made it. Not a runtime: only the worker knows which
//! one it runs.

use std::{fmt, future::Future, pin::Pin, rc::Rc};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Starts tasks on one worker; cheap to clone.
#[derive(Clone)]
pub struct Spawn(Rc<dyn Fn(Task)>);

impl Spawn {
    /// A handle around the worker's own way to start a task.
    pub fn new(start: impl Fn(Task) + 'static) -> Self {
        Self(Rc::new(start))
    }

    /// Starts `task`; nobody waits for it.
    pub fn start(&self, task: impl Future<Output = ()> + 'static) {
        (self.0)(Box::pin(task));
    }
}

/// hyper's HTTP/2 starts a task for each stream.
impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, task: F) {
        self.start(task);
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawn")
    }
}
