//! The default executor: what `run_in_executor(None, ...)` and `asyncio.to_thread` run on.
//!
//! [`Executor`] owns the list of its threads, which are Python's own `threading.Thread`s. Executor and threads share a
//! [`Pool`]: the channel of jobs, and the channel that threads sleep on. The rules are `ThreadPoolExecutor`'s; it gives
//! way here since each of its calls costs a future of its own, a semaphore, a lock and a callback on the way back.
//!
//! 1. A thread holds the pool, never the executor nor a loop: an executor that is dropped ends its threads.
//! 2. A thread that sleeps is woken by one token. One woken thread at a time looks for jobs; when it has found one and
//!    there are more, it wakes the next before it begins. So many short jobs do not wake all threads to wait for the
//!    GIL, and a job that blocks holds up nobody.
//! 3. Every job that was queued is run or was cancelled, also when the executor is shut down or the interpreter exits:
//!    a thread ends only when the queue is empty.
//! 4. At exit `concurrent.futures` tells the threads in its own list to end, and joins them.
//!
//! ```text
//! loop's thread                              a thread of the pool
//!   future, job ──► jobs                       (asleep on `wakes`, detached)
//!   nobody looks for jobs: token ──► wakes ──► attach, take the job, run it
//!   (next turn) set the future's result ◄── ready queue ── detach, wake the loop if it sleeps, sleep
//! ```

use crate::errors;
use crate::event_loop::owned::Runnable;
use crate::event_loop::run::Run;
use crate::event_loop::source::{Event, Source};
use crate::event_loop::{Loop, Shared};
use crate::py::call::call_keywords;
use crate::py::cell::OwnerCell;
use crate::py::method::{self, Arguments, Body, Method};
use crate::py::names;
use crossbeam_channel::{Receiver, Sender, unbounded};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the threads share with their executor. All of it is read and written attached, but for the two channels.
#[derive(Debug)]
struct Pool {
    jobs: (Sender<Py<Job>>, Receiver<Py<Job>>),
    /// A token wakes one of the threads that sleep.
    wakes: (Sender<()>, Receiver<()>),
    /// Threads that sleep, and those that were woken and have not looked for a job yet.
    idle: AtomicUsize,
    /// A thread was woken and has not looked for a job yet.
    is_searching: AtomicBool,
    /// Threads end when they find no job.
    is_over: AtomicBool,
    is_exiting: AtomicBool,
    /// A forked child has the pool, but not its threads.
    process: u32,
}

impl Pool {
    fn new() -> Self {
        Self {
            jobs: unbounded(),
            wakes: unbounded(),
            idle: AtomicUsize::new(0),
            is_searching: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_exiting: AtomicBool::new(false),
            process: std::process::id(),
        }
    }

    /// Wakes a thread, unless one is on its way to the jobs already or all are busy.
    fn wake_one(&self) {
        if self.idle.load(Ordering::SeqCst) > 0 && !self.is_searching.swap(true, Ordering::SeqCst) {
            self.send_tokens(1);
        }
    }

    /// Ends the threads once there is nothing left to do.
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        // After a fork, a thread that is gone may have held the channel's lock for ever.
        if self.process == std::process::id() {
            self.send_tokens(self.idle.load(Ordering::SeqCst));
        }
    }

    fn send_tokens(&self, count: usize) {
        for _ in 0..count {
            // The receiver lives in the same struct as the sender: the channel cannot be closed.
            let sent = self.wakes.0.send(());
            debug_assert!(sent.is_ok(), "the pool holds both ends of its channels");
        }
    }

    /// The life of a thread.
    fn work(&self, py: Python<'_>) {
        loop {
            let mut sleeper = None;
            while let Ok(job) = self.jobs.1.try_recv() {
                wake(sleeper.take());
                if !self.jobs.1.is_empty() {
                    self.wake_one();
                }
                sleeper = Job::run(job.bind(py)).unwrap_or_else(|error| {
                    error.write_unraisable(py, Some(job.bind(py)));
                    None
                });
                job.drop_ref(py);
            }
            self.idle.fetch_add(1, Ordering::SeqCst);
            let must_sleep = self.jobs.1.is_empty() && !self.is_over.load(Ordering::SeqCst);
            // The loop is woken by a thread that has let go of the GIL: it would wait for it at once.
            py.detach(|| {
                wake(sleeper);
                if must_sleep {
                    // An error: never, both ends of the channel are here.
                    let _ = self.wakes.1.recv();
                }
            });
            self.idle.fetch_sub(1, Ordering::SeqCst);
            if must_sleep {
                self.is_searching.store(false, Ordering::SeqCst);
            }
            if self.is_over.load(Ordering::SeqCst) && self.jobs.1.is_empty() {
                return;
            }
        }
    }
}

/// Wakes a loop that sleeps.
fn wake(sleeper: Option<Arc<Shared>>) {
    if let Some(shared) = sleeper {
        // An error: the loop was closed meanwhile, and nobody waits.
        drop(shared.poller.wake());
    }
}

/// What a thread runs; stands for the thread in the list that is joined at exit.
#[pyclass(frozen, module = "mioloop._core")]
#[derive(Debug)]
struct Worker {
    pool: Arc<Pool>,
}

#[pymethods]
impl Worker {
    fn __call__(&self, py: Python<'_>) {
        self.pool.work(py);
    }

    /// Called by `concurrent.futures` at exit, before it joins the thread; matches `SimpleQueue.put` of its own pools.
    fn put(&self, _item: &Bound<'_, PyAny>) {
        self.pool.is_exiting.store(true, Ordering::SeqCst);
        self.pool.end();
    }
}

/// The default executor of a loop; stands in its `_default_executor`.
#[pyclass(frozen, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Executor {
    pool: Arc<Pool>,
    threads: OwnerCell<Vec<Py<PyAny>>>,
    /// Threads that were started.
    started: AtomicUsize,
    /// At most so many.
    limit: usize,
}

impl Executor {
    /// With as many threads at most as `ThreadPoolExecutor` has by itself.
    fn new(py: Python<'_>) -> PyResult<Self> {
        let count = if cfg!(Py_3_13) { intern!(py, "process_cpu_count") } else { intern!(py, "cpu_count") };
        let processors: Option<usize> = py.import("os")?.call_method0(count)?.extract()?;
        Ok(Self {
            pool: Arc::new(Pool::new()),
            threads: OwnerCell::new(Vec::new()),
            started: AtomicUsize::new(0),
            limit: (processors.unwrap_or(1) + 4).min(32),
        })
    }

    /// Queues a call; gives the future of the loop that will have its result.
    fn submit<'py>(
        &self,
        core: &Bound<'py, Loop>,
        function: &Borrowed<'_, 'py, PyAny>,
        args: &[Borrowed<'_, 'py, PyAny>],
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = core.py();
        let pool = &*self.pool;
        if pool.is_over.load(Ordering::SeqCst) {
            let when = if pool.is_exiting.load(Ordering::SeqCst) { "interpreter shutdown" } else { "shutdown" };
            return Err(PyRuntimeError::new_err(format!("cannot schedule new futures after {when}")));
        }
        let future = core.call_method0(intern!(py, "create_future"))?;
        let args = PyTuple::new(py, args.iter().map(|arg| arg.as_any()))?;
        let state = OwnerCell::new(State::Waiting(Bound::clone(function).unbind(), args.unbind()));
        let job = Py::new(py, Job { core: core.clone().unbind(), future: future.clone().unbind(), state })?;
        // The pool has the other end.
        let sent = pool.jobs.0.send(job);
        debug_assert!(sent.is_ok(), "the pool holds both ends of its channels");
        // As `ThreadPoolExecutor._adjust_thread_count`: threads that idle take what is queued.
        let is_short = pool.jobs.1.len() > pool.idle.load(Ordering::SeqCst);
        if is_short && self.started.load(Ordering::SeqCst) < self.limit {
            self.start_thread(py)?;
        } else {
            pool.wake_one();
        }
        Ok(future)
    }

    /// Starts one more thread, under the lock that keeps new threads away from an exit under way.
    #[cold]
    fn start_thread(&self, py: Python<'_>) -> PyResult<()> {
        let lock = names::FUTURES_EXIT_LOCK.get(py)?;
        lock.call_method0(intern!(py, "acquire"))?;
        let outcome = self.start_locked(py);
        lock.call_method0(intern!(py, "release"))?;
        outcome
    }

    fn start_locked(&self, py: Python<'_>) -> PyResult<()> {
        let threads = py.import("concurrent.futures.thread")?;
        if threads.getattr(intern!(py, "_shutdown"))?.is_truthy()? {
            return Err(PyRuntimeError::new_err("cannot schedule new futures after interpreter shutdown"));
        }
        let worker = Py::new(py, Worker { pool: Arc::clone(&self.pool) })?;
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        let keywords = PyDict::new(py);
        keywords.set_item("name", format!("asyncio_{number}"))?;
        keywords.set_item("target", worker.clone_ref(py))?;
        let thread = names::THREAD.get(py)?.call((), Some(&keywords))?;
        thread.call_method0(intern!(py, "start")).inspect_err(|_| {
            self.started.fetch_sub(1, Ordering::SeqCst);
        })?;
        threads.getattr(intern!(py, "_threads_queues"))?.set_item(&thread, worker)?;
        self.threads.with(py, |threads| threads.push(thread.unbind()));
        Ok(())
    }
}

#[pymethods]
impl Executor {
    /// The threads that were started; by the name that `ThreadPoolExecutor` has for them.
    #[getter]
    fn _threads(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.threads.with(py, |threads| threads.iter().map(|thread| thread.clone_ref(py)).collect())
    }

    /// Ends the threads once nothing is queued; waits for that unless `wait` is False. Matches Executor.shutdown.
    #[pyo3(signature = (wait=true))]
    fn shutdown(&self, py: Python<'_>, wait: bool) -> PyResult<()> {
        self.pool.end();
        if !wait {
            return Ok(());
        }
        let threads =
            self.threads.with(py, |threads| threads.iter().map(|thread| thread.clone_ref(py)).collect::<Vec<_>>());
        threads.iter().try_for_each(|thread| thread.call_method0(py, intern!(py, "join")).map(drop))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.threads.try_with(|threads| threads.iter().try_for_each(|thread| visit.call(thread))).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.threads.try_with(std::mem::take));
    }
}

impl Drop for Executor {
    /// Threads of an executor that nobody shut down end by themselves.
    fn drop(&mut self) {
        self.pool.end();
    }
}

/// What becomes of a call.
#[derive(Debug)]
enum State {
    Waiting(Py<PyAny>, Py<PyTuple>),
    /// A thread runs it.
    Running,
    Returned(Py<PyAny>),
    Raised(Py<PyAny>),
    /// Nothing is left: the future has it, or nobody wanted it.
    Over,
}

/// A call for a thread of the pool, and then its outcome for the loop.
#[pyclass(frozen, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Job {
    core: Py<Loop>,
    future: Py<PyAny>,
    state: OwnerCell<State>,
}

impl Job {
    fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        self.future.call_method0(py, intern!(py, "cancelled"))?.is_truthy(py)
    }

    /// Calls, in the thread, and tells the loop, which must be woken if it is given back: a call that was cancelled is
    /// not begun. Nobody else can see an exception that the call ends with, whatever it is.
    fn run(slf: &Bound<'_, Self>) -> PyResult<Option<Arc<Shared>>> {
        let py = slf.py();
        let job = slf.get();
        let State::Waiting(function, args) = job.state.with(py, |state| std::mem::replace(state, State::Running))
        else {
            return Ok(None);
        };
        if job.is_cancelled(py)? {
            return Ok(None);
        }
        let outcome = match function.call1(py, args.bind(py)) {
            Ok(value) => State::Returned(value),
            Err(error) => State::Raised(errors::exception(py, &error)?.unbind()),
        };
        job.state.with(py, |state| *state = outcome);
        let core = job.core.get();
        let sleeper = if core.check_open().is_ok() {
            core.post(py, Runnable::Event(Source::Job(slf.clone().unbind()), Event::Continue))
        } else {
            None
        };
        function.drop_ref(py);
        args.drop_ref(py);
        Ok(sleeper)
    }

    /// Hands the outcome to the future, in the loop's thread; one that was cancelled meanwhile does not want it.
    pub(crate) fn on_event(slf: &Bound<'_, Self>, _run: &mut Run<'_, '_>, _event: Event) -> PyResult<()> {
        let py = slf.py();
        let job = slf.get();
        let outcome = job.state.with(py, |state| std::mem::replace(state, State::Over));
        if job.is_cancelled(py)? {
            return Ok(());
        }
        let future = job.future.bind(py);
        match outcome {
            State::Returned(value) => future.call_method1(intern!(py, "set_result"), (value,)).map(drop),
            State::Raised(error) => {
                let error = as_asyncio(error.bind(py))?;
                future.call_method1(intern!(py, "set_exception"), (error,)).map(drop)
            }
            State::Waiting(..) | State::Running | State::Over => Ok(()),
        }
    }
}

/// The exceptions of `concurrent.futures` that asyncio has under its own name; matches `futures._convert_future_exc`.
fn as_asyncio<'py>(error: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = error.py();
    let class = error.get_type();
    let name = if class.is(names::FUTURES_CANCELLED_ERROR.get(py)?) {
        intern!(py, "CancelledError")
    } else if class.is(names::FUTURES_INVALID_STATE_ERROR.get(py)?) {
        intern!(py, "InvalidStateError")
    } else {
        return Ok(error.clone());
    };
    let args = error.getattr(intern!(py, "args"))?.cast_into()?;
    let converted = py.import("asyncio.exceptions")?.getattr(name)?.call1(args)?;
    let traceback = error.getattr(intern!(py, "__traceback__"))?;
    converted.call_method1(intern!(py, "with_traceback"), (traceback,))
}

#[pymethods]
impl Job {
    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<result of run_in_executor for {}>", errors::repr(self.future.bind(py)))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        visit.call(&self.future)?;
        let visit_state = |state: &mut State| match state {
            State::Waiting(function, args) => visit.call(&*function).and_then(|()| visit.call(&*args)),
            State::Returned(object) | State::Raised(object) => visit.call(&*object),
            State::Running | State::Over => Ok(()),
        };
        self.state.try_with(visit_state).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.state.try_with(|state| std::mem::replace(state, State::Over)));
    }
}

/// `loop.run_in_executor`
struct RunInExecutor;

impl Method for RunInExecutor {
    type Class = Loop;
    const NAME: &'static CStr = c"run_in_executor";
    const DOC: &'static CStr = c"run_in_executor($self, executor, func, *args)\n--\n\nCalls in another thread; gives the Future of the result. Matches BaseEventLoop.run_in_executor.";
    const BODY: Body<Loop> = run_in_executor;
}

/// Puts the method on the loop's class.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    method::define::<RunInExecutor>(class)
}

fn run_in_executor<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let core = slf.get();
    let mut room = Vec::new();
    let (values, context) = arguments.bind(py, "run_in_executor", &["executor", "func"], &mut room)?;
    if context.is_some() {
        let text = "run_in_executor() got an unexpected keyword argument 'context'";
        return Err(PyTypeError::new_err(text));
    }
    let (executor, function, args) = (&values[0], &values[1], &values[2..]);
    if executor.is_none() {
        core.check_open()?;
        if core.is_debug() {
            slf.call_method1(intern!(py, "_check_callback"), (function, intern!(py, "run_in_executor")))?;
        }
        if slf.getattr(intern!(py, "_executor_shutdown_called"))?.is_truthy()? {
            return Err(PyRuntimeError::new_err("Executor shutdown has been called"));
        }
        let name = intern!(py, "_default_executor");
        let mut default = slf.getattr(name)?;
        if default.is_none() {
            default = Bound::new(py, Executor::new(py)?)?.into_any();
            slf.setattr(name, &default)?;
        }
        if let Ok(default) = default.cast_exact::<Executor>() {
            return default.get().submit(slf, function, args);
        }
    }
    // An executor of the user's.
    let mut inherited = vec![slf.as_any().as_borrowed()];
    inherited.extend_from_slice(values);
    call_keywords(py, names::BASE_RUN_IN_EXECUTOR.get(py)?, &inherited, None)
}
