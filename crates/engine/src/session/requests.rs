//! Requests of a client that wait for something outside: a publication for the history or for
//! PostgreSQL, a token for an authentication function.
//!
//! One of them is under way at a time, and the requests that come after it wait behind it, so that
//! all are carried out in the order in which they came. Deliveries, pings and the end of the
//! session do not wait. A subscription that waits for its source is a
//! [`Pending`](super::waiting::Pending), which holds up nothing at all.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tidewire_protocol::{
    Answer, Code, Command, Position, Publication, Reference, Refusal, Token, Topic,
};
use tokio_util::sync::ReusableBoxFuture;
use tokio_util::task::AbortOnDropHandle;

use super::{Patience, Session};
use crate::auth::Identity;

/// The request under way, and those behind it.
pub(super) struct Requests {
    current: Current,
    waiting: VecDeque<Waiting>,
    /// Of the frames that brought what waits.
    bytes: usize,
}

enum Current {
    Working(ReusableBoxFuture<'static, Done>),
    Done(Done),
}

struct Waiting {
    command: Command,
    bytes: usize,
}

/// What came of a request.
enum Done {
    Published {
        topic: Topic,
        reference: Option<Reference>,
        /// Whether the client is told the position.
        confirm: bool,
        published: Result<Option<Position>, Refusal>,
    },
    Identified {
        reference: Option<Reference>,
        identity: Result<Identity, Refusal>,
    },
}

impl Requests {
    /// Waits until the request under way is done. Cancel safe.
    async fn done(&mut self) {
        if let Current::Working(work) = &mut self.current {
            self.current = Current::Done(poll_fn(|context| work.poll(context)).await);
        }
    }
}

/// The same where there may be none, which is never done.
pub(super) async fn request_done(requests: &mut Option<Box<Requests>>) {
    match requests {
        Some(requests) => requests.done().await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Whether [`Session::go_on`] has something to do.
    pub(super) fn can_go_on(&self) -> bool {
        let requests = self.requests.as_ref();
        requests.is_some_and(|requests| matches!(requests.current, Current::Done(_)))
    }

    /// Answers the request that was under way, if it is done, and carries out those behind it
    /// until one of them has to wait, too. To be called whenever [`Session::ready`] returns.
    ///
    /// Not cancel safe: a request that is dropped halfway may or may not be carried out.
    pub async fn go_on(&mut self) {
        // Rarely so, and what it needs is held only then.
        if self.can_go_on() {
            Box::pin(self.carry_on()).await;
        }
    }

    async fn carry_on(&mut self) {
        let Some(requests) = self.requests.take() else { return };
        let Requests { current: Current::Done(done), mut waiting, .. } = *requests else {
            return;
        };
        self.answer_request(done).await;
        while let Some(Waiting { command, bytes }) = waiting.pop_front() {
            self.carry_out_one(command, bytes).await;
            if let Some(requests) = &mut self.requests {
                requests.bytes = waiting.iter().map(|waiting| waiting.bytes).sum();
                requests.waiting = waiting;
                return;
            }
        }
    }

    /// Carries a command out, or has it wait for its turn; `bytes` is the size of its frame.
    pub(super) async fn carry_out_one(&mut self, command: Command, bytes: usize) {
        // A ping asks whether the connection is alive, which does not depend on any request.
        if self.requests.is_some() && !matches!(command, Command::Ping { .. }) {
            return self.postpone(command, bytes);
        }
        self.patience = Patience::Later;
        let done = self.perform(command).await;
        self.patience = Patience::Now;
        if let Err(refusal) = done {
            self.refuse(refusal);
        }
    }

    fn postpone(&mut self, command: Command, bytes: usize) {
        let limits = self.node.limits.load_full();
        let Some(requests) = &mut self.requests else { return };
        let is_full = requests.waiting.len() >= limits.burst as usize
            || requests.bytes + bytes > limits.mailbox_bytes;
        if is_full {
            let message = "too many requests wait for an earlier one of this connection";
            let mut refusal = Refusal::new(Code::RateLimited, message);
            refusal.topic = command.topic().cloned();
            refusal.reference = command.reference().cloned();
            return self.refuse(refusal);
        }
        requests.bytes += bytes;
        requests.waiting.push_back(Waiting { command, bytes });
    }

    /// Publishes what the client may publish.
    pub(super) async fn publish_allowed(
        &mut self,
        publication: Publication,
    ) -> Result<(), Refusal> {
        let topic = publication.topic.clone();
        let (reference, confirm) = (publication.reference.clone(), publication.confirm);
        if !publication.echo {
            self.withhold(&topic);
        }
        let publisher = self.node.publisher.clone();
        let work = publisher.submit(publication, self.principal(), Some(self.id));
        self.begin_request(Box::pin(async move {
            Done::Published { topic, reference, confirm, published: work.await }
        }))
        .await
    }

    /// Finds out who the bearer of the token is and takes on that identity.
    pub(super) async fn identify(
        &mut self,
        token: Token,
        reference: Option<Reference>,
    ) -> Result<(), Refusal> {
        let node = std::sync::Arc::clone(&self.node);
        let principal = self.principal();
        self.begin_request(Box::pin(async move {
            let identity = node.check_token(&token, principal).await;
            Done::Identified { identity: identity.map_err(|r| r.to(reference.clone())), reference }
        }))
        .await
    }

    /// Waits for the work, or has it under way where the client is told later.
    async fn begin_request(
        &mut self,
        mut work: Pin<Box<dyn Future<Output = Done> + Send>>,
    ) -> Result<(), Refusal> {
        if self.patience == Patience::Now {
            return self.finish_request(work.await).await;
        }
        match poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
            Poll::Ready(done) => self.finish_request(done).await,
            Poll::Pending => {
                let current = Current::Working(ReusableBoxFuture::new(driven(work)));
                let waiting = VecDeque::new();
                self.requests = Some(Box::new(Requests { current, waiting, bytes: 0 }));
                Ok(())
            }
        }
    }

    async fn answer_request(&mut self, done: Done) {
        if let Err(refusal) = self.finish_request(done).await {
            self.refuse(refusal);
        }
    }

    async fn finish_request(&mut self, done: Done) -> Result<(), Refusal> {
        match done {
            Done::Published { topic, reference, confirm, published } => {
                let position = published?;
                if confirm {
                    self.say(&Answer::Published { topic, position, reference });
                }
            }
            Done::Identified { identity, reference } => {
                // Keys may have been taken away while the token was looked at.
                let judged = self.node.judge_again(&identity?);
                let identity = judged.map_err(|refusal| refusal.to(reference.clone()))?;
                self.take_on(identity, reference).await?;
            }
        }
        Ok(())
    }
}

/// The work in a task of its own, which ends with the session: a client that takes no bytes must
/// not hold up a query of which the database waits for the end.
async fn driven(work: Pin<Box<dyn Future<Output = Done> + Send>>) -> Done {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    match task.await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
