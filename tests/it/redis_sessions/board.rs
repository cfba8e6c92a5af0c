//! What was published on which channel, and whether who listened heard all of it once and in order.
//! Each channel has one publisher and numbers its messages.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What all sessions of one run share.
#[derive(Debug, Default)]
pub(super) struct Board {
    channels: Mutex<HashMap<String, Channel>>,
    /// How often a client has left without hearing all: its channel is another one then.
    generations: Mutex<HashMap<usize, u64>>,
    ended: Mutex<Vec<Subscription>>,
    counts: Mutex<HashMap<&'static str, u64>>,
    /// Sessions that will publish no more.
    pub(super) done: AtomicU64,
}

#[derive(Debug, Default)]
struct Channel {
    /// The newest number that was handed out.
    sent: u64,
    /// Those whose PUBLISH was answered.
    published: Vec<u64>,
}

/// What one client has heard of one channel, by its name or by a pattern.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) channel: String,
    /// The newest number when the subscription was confirmed.
    since: u64,
    heard: Vec<u64>,
    /// It lasted until nobody published any more.
    lasted: bool,
}

impl Board {
    /// The channel on which `client` publishes now; its transactions may publish there too.
    pub(super) fn channel(&self, client: usize) -> String {
        let generation = self.generations.lock().unwrap().get(&client).copied().unwrap_or(0);
        format!("{{c{client}}}:news{generation}")
    }

    /// It is not known what of the channel's last messages was published.
    pub(super) fn abandon(&self, client: usize) {
        *self.generations.lock().unwrap().entry(client).or_default() += 1;
    }

    /// The text of the next message.
    pub(super) fn next_message(&self, channel: &str) -> String {
        let mut channels = self.channels.lock().unwrap();
        let entry = channels.entry(channel.to_owned()).or_default();
        entry.sent += 1;
        format!("{channel}={}", entry.sent)
    }

    /// PUBLISH of that text was answered.
    pub(super) fn published(&self, channel: &str, text: &str) {
        let number = number_of(channel, text).unwrap();
        self.channels.lock().unwrap().get_mut(channel).unwrap().published.push(number);
    }

    pub(super) fn subscribe(&self, channel: &str) -> Subscription {
        let mut channels = self.channels.lock().unwrap();
        let since = channels.entry(channel.to_owned()).or_default().sent;
        Subscription { channel: channel.to_owned(), since, heard: Vec::new(), lasted: false }
    }

    pub(super) fn unsubscribe(&self, subscription: Subscription) {
        self.ended.lock().unwrap().push(subscription);
    }

    /// Whether it has heard the last message; then it is over.
    pub(super) fn has_all(&self, subscription: &mut Subscription) -> bool {
        let channels = self.channels.lock().unwrap();
        let last = channels.get(&subscription.channel).and_then(|channel| channel.published.last());
        let heard = subscription.heard.last().copied().unwrap_or(subscription.since);
        subscription.lasted = last.is_none_or(|last| *last <= heard);
        subscription.lasted
    }

    /// Counts something that happened, for the tests to see that it does happen.
    pub(super) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(super) fn counted(&self, what: &'static str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub(super) fn finish(&self) {
        self.done.fetch_add(1, Relaxed);
    }

    /// Everything that happened and how often.
    pub(super) fn told(&self) -> String {
        let mut counts: Vec<_> = self.counts.lock().unwrap().clone().into_iter().collect();
        counts.sort_unstable();
        counts.iter().map(|(what, count)| format!("{what} {count}, ")).collect()
    }

    /// What was not heard although it had to be, or was heard and never published.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let channels = self.channels.lock().unwrap();
        let ended = self.ended.lock().unwrap();
        let wrong = |subscription: &Subscription| {
            let Subscription { channel: name, since, heard, lasted } = subscription;
            let channel = channels.get(name)?;
            let newest = channel.published.last().copied().unwrap_or(0);
            let invented = heard.iter().find(|number| {
                **number > channel.sent
                    || (**number <= newest && !channel.published.contains(number))
            });
            if let Some(number) = invented {
                return Some(format!("{name}={number} was never published, but heard"));
            }
            let from = heard.first().copied().unwrap_or(u64::MAX).min(since + 1);
            let to = if *lasted { newest } else { heard.last().copied().unwrap_or(0) };
            let missed = channel
                .published
                .iter()
                .find(|number| (from..=to).contains(*number) && !heard.contains(number))?;
            Some(format!("{name}={missed} was not heard: since {since}, {heard:?}"))
        };
        ended.iter().filter_map(wrong).collect()
    }
}

impl Subscription {
    /// A message on its channel.
    pub(super) fn hears(&mut self, text: &str) -> Result<(), String> {
        let number = number_of(&self.channel, text).ok_or("a message of another channel")?;
        let last = self.heard.last().copied().unwrap_or(0);
        if number <= last {
            return Err(format!("message {number} after {last}"));
        }
        self.heard.push(number);
        Ok(())
    }
}

fn number_of(channel: &str, text: &str) -> Option<u64> {
    text.strip_prefix(channel)?.strip_prefix('=')?.parse().ok()
}
