//! Notices for those who follow: the last ones, then each new one, without a gap or a repetition
//! between. A reader that lags behind is told how many it has lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anywan_core::api::Notice;
use axum::body::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

/// Notices that are remembered: some days of an ordinary line, some minutes of a flapping one.
const RECENT_MAX: usize = 256;

/// Notices that one reader may lag behind.
const LAG_MAX: usize = 256;

/// The last notices. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    last: VecDeque<Notice>,
    /// `None` once the server stops.
    live: Option<broadcast::Sender<Notice>>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { last: VecDeque::new(), live: Some(broadcast::channel(LAG_MAX).0) }
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that can panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, notice: Notice) {
        let mut inner = self.lock();
        if inner.last.len() == RECENT_MAX {
            inner.last.pop_front();
        }
        inner.last.push_back(notice.clone());
        if let Some(live) = &inner.live {
            // Nobody following is fine.
            let _ = live.send(notice);
        }
    }

    /// The last notices, at most `backlog`, and all that come after them.
    pub(super) fn follow(&self, backlog: usize) -> (Vec<Notice>, Option<Follower>) {
        let inner = self.lock();
        let skipped = inner.last.len().saturating_sub(backlog);
        let last = inner.last.iter().skip(skipped).cloned().collect();
        let live = inner.live.as_ref().map(broadcast::Sender::subscribe);
        (last, live.map(|live| Follower { live, lost: 0, held: None }))
    }
}

/// Takes notices from the daemon until it or the server ends; then all followers' streams end.
pub(super) async fn collect(
    recent: Recent,
    notices: broadcast::Receiver<Notice>,
    mut stop: watch::Receiver<bool>,
) {
    let mut daemon = Follower { live: notices, lost: 0, held: None };
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            notice = daemon.next() => match notice {
                Some(notice) => recent.add(notice),
                None => break,
            },
        }
    }
    recent.lock().live = None;
}

/// One who follows.
#[derive(Debug)]
pub(super) struct Follower {
    live: broadcast::Receiver<Notice>,
    /// Lost since the last notice.
    lost: u64,
    /// Comes after the one that tells of the loss.
    held: Option<Notice>,
}

impl Follower {
    /// The next notice, `None` at the end. Can be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Notice> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        loop {
            match self.live.recv().await {
                Ok(notice) if self.lost == 0 => return Some(notice),
                Ok(notice) => {
                    let lost = lost(std::mem::take(&mut self.lost), &notice);
                    self.held = Some(notice);
                    return Some(lost);
                }
                // After this the oldest that is left comes at once.
                Err(RecvError::Lagged(count)) => self.lost += count,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Tells of notices that were lost before `next`.
fn lost(count: u64, next: &Notice) -> Notice {
    Notice {
        time: next.time.clone(),
        kind: "lost".to_owned(),
        wan: String::new(),
        family: String::new(),
        old: String::new(),
        new: count.to_string(),
        reason: format!("{count} notices were not read in time"),
    }
}

/// Writes notices as JSON lines until there are no more, or nobody wants them.
pub(super) async fn write_lines(
    last: Vec<Notice>,
    follower: Option<Follower>,
    lines: mpsc::Sender<Bytes>,
) {
    for notice in last {
        if lines.send(line(&notice)).await.is_err() {
            return;
        }
    }
    let Some(mut follower) = follower else { return };
    loop {
        let notice = tokio::select! {
            () = lines.closed() => return,
            notice = follower.next() => notice,
        };
        let Some(notice) = notice else { return };
        if lines.send(line(&notice)).await.is_err() {
            return;
        }
    }
}

fn line(notice: &Notice) -> Bytes {
    let mut text = serde_json::to_vec(notice).expect("a notice is made of strings");
    text.push(b'\n');
    text.into()
}
