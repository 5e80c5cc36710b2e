use std::{
    future::{self, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::watch;

tokio::task_local! {
    static CURRENT: Shutdown;
}

/// Tells code that runs inside a run whether the run was asked to stop.
///
/// [`run_until`](crate::run_until) finishes the event in hand before it ends. Who waits for long in there, as a retry does
/// between two attempts, waits for this as well and gives up with [`Error::stopped`](crate::Error::stopped): the event is
/// delivered again by the next run.
///
/// It is known to everything that the run polls, handlers included. A task that is spawned starts without it: take
/// [`current`](Shutdown::current) along, and [`scope`](Shutdown::scope) the task with it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use reflex_core::{Error, Event, HandlerError, Shutdown};
///
/// async fn handle(event: Event) -> Result<(), HandlerError> {
///     tokio::select! {
///         () = Shutdown::current().requested() => Err(Error::stopped().into()),
///         () = tokio::time::sleep(Duration::from_secs(600)) => Ok(()),
///     }
/// }
/// # let _ = handle;
/// ```
#[derive(Clone, Debug)]
pub struct Shutdown(Option<watch::Receiver<bool>>);

impl Shutdown {
    /// The one of the run that this code is part of; outside of a run, one that is never requested.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or(Self(None))
    }

    /// Whether the run was asked to stop, or is over.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.as_ref().is_some_and(|requested| *requested.borrow() || requested.has_changed().is_err())
    }

    /// Waits until the run is asked to stop, or is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn requested(self) {
        match self.0 {
            // An error says that the run is over.
            Some(mut requested) => drop(requested.wait_for(|requested| *requested).await),
            None => future::pending().await,
        }
    }

    /// Waits until the run is over, because it ended or because its future was dropped: tasks that a consumer spawned have
    /// nothing more to do then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn over(self) {
        match self.0 {
            Some(mut requested) => while requested.changed().await.is_ok() {},
            None => future::pending().await,
        }
    }

    /// Runs a future so that this is its [`current`](Shutdown::current) one: for tasks that a consumer spawns.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the one inside.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }
}

/// What a service passes to ask for a shutdown, as a future that can be polled after it is done and tells those inside the
/// run.
pub(crate) struct Request<'a, F> {
    asked: Pin<&'a mut F>,
    tell: watch::Sender<bool>,
    waited: bool,
}

impl<'a, F: Future<Output = ()>> Request<'a, F> {
    pub(crate) fn new(asked: Pin<&'a mut F>) -> (Self, Shutdown) {
        let (tell, requested) = watch::channel(false);
        (Self { asked, tell, waited: false }, Shutdown(Some(requested)))
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.tell.borrow()
    }

    /// Whether the work that was attended last was not done at once.
    pub(crate) fn has_waited(&self) -> bool {
        self.waited
    }

    /// Finishes some work, and tells it when the shutdown is asked for meanwhile.
    pub(crate) async fn attend<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        self.waited = false;
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() {
                self.waited = true;
                let _ = Pin::new(&mut *self).poll(cx);
            }
            polled
        })
        .await
    }
}

impl<F: Future<Output = ()>> Future for Request<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_asked() {
            return Poll::Ready(());
        }
        let polled = self.asked.as_mut().poll(cx);
        if polled.is_ready() {
            self.tell.send_replace(true);
        }
        polled
    }
}
