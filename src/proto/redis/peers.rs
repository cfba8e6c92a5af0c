//! What sessions ask of the clients of every worker: to be listed, to be closed, to wait. A question
//! goes to the other workers through their mailboxes. Not what is asked: that is
//! `client_list` and `pause`.

use super::{
    client_list::{self, Filter},
    dispatch::{Flow, Scene},
    hub::Hub,
    pause::{self, Pause},
    redirect::{self, Wish},
    reply,
};
use crate::topology::Standing;
use std::{fmt, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// One question on its way to a worker.
#[derive(Debug)]
pub struct Ask {
    question: Question,
    answer: oneshot::Sender<Answer>,
}

#[derive(Clone, Debug)]
pub(super) enum Question {
    List(Filter),
    Kill(Filter),
    Pause(Pause),
    Unpause,
    /// A connection on which one of its clients hears for another.
    Ear(Wish),
}

/// What one worker says.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Clients by id, with their lines.
    pub lines: Vec<(u64, String)>,
    pub killed: u64,
    pub ear: Option<Arc<Standing>>,
}

/// The other workers, as one of them sees them.
pub struct Peers {
    own: usize,
    count: usize,
    send: Box<dyn Fn(usize, Ask) -> bool>,
}

impl Peers {
    /// `send` puts a question into the mailbox of a worker, of which there are `count`; false when
    /// that is full.
    pub fn new(own: usize, count: usize, send: impl Fn(usize, Ask) -> bool + 'static) -> Self {
        Self { own, count, send: Box::new(send) }
    }

    /// There are no others.
    pub fn none() -> Self {
        Self::new(0, 1, |_, _| false)
    }

    /// Asks all others at once. `None` stands for one whose mailbox is full.
    pub(super) fn ask(&self, question: &Question) -> Vec<Option<oneshot::Receiver<Answer>>> {
        let others = (0..self.count).filter(|worker| *worker != self.own);
        others
            .map(|worker| {
                let (sender, receiver) = oneshot::channel();
                let ask = Ask { question: question.clone(), answer: sender };
                (self.send)(worker, ask).then_some(receiver)
            })
            .collect()
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("own", &self.own).field("count", &self.count).finish()
    }
}

/// Answers what another worker asked.
pub fn serve(hub: &Rc<Hub>, ask: Ask) {
    let answer = answer(hub, &ask.question);
    // Who asked may have given up.
    let _ = ask.answer.send(answer);
}

fn answer(hub: &Rc<Hub>, question: &Question) -> Answer {
    match question {
        Question::List(filter) => client_list::list(hub, filter),
        Question::Kill(filter) => client_list::kill(hub, filter),
        Question::Pause(pause) => {
            pause::pause(hub, *pause);
            Answer::default()
        }
        Question::Unpause => {
            pause::unpause(hub);
            Answer::default()
        }
        Question::Ear(wish) => Answer { ear: redirect::serve(hub, *wish), ..Answer::default() },
    }
}

impl Scene<'_> {
    /// Asks every worker and replies with what `finish` makes of all the answers, ours first. What
    /// the client sends next waits until then, as it would at one server; in EXEC's reply ours alone
    /// is told.
    pub(super) fn ask_workers(
        &mut self,
        question: &Question,
        finish: impl FnOnce(Vec<Answer>) -> Vec<u8> + 'static,
    ) -> Flow {
        let mut answers = vec![answer(self.hub, question)];
        let asked = self.hub.peers.ask(question);
        if asked.is_empty() || self.aside.is_some() {
            self.reply(&finish(answers));
            return Flow::Continue;
        }
        let seq = self.client.open(0);
        self.client.wait_for_all();
        let (hub, client) = (Rc::clone(self.hub), Rc::clone(self.client));
        self.hub.start(async move {
            let collect = async {
                for receiver in asked {
                    answers.push(receiver?.await.ok()?);
                }
                Some(answers)
            };
            let collected = tokio::time::timeout(DEADLINE, collect).await.ok().flatten();
            let text = collected.map_or_else(|| reply::WORKER_SILENT.to_vec(), finish);
            client.answer(&hub, seq, 0, "", &text);
            client.flush(&hub);
        });
        Flow::Continue
    }
}

/// A worker that has not answered by then is stuck, or gone.
const DEADLINE: Duration = Duration::from_secs(1);
