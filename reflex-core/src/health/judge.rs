//! What a snapshot means: the state, and whether that is healthy.

use std::time::Duration;

use super::{
    ConsumerHealth, ConsumerState, LastError,
    track::{Ending, Failure, Phase, Snapshot},
    wall,
};

/// After a failure that was not about an event, a consumer that has waited at the head for this long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn judge(seen: &Snapshot, patience: Duration) -> ConsumerHealth {
    let (state, stalled) = (state(seen), stalled(seen));
    let problem = problem(seen, state, stalled, patience);
    ConsumerHealth {
        name: seen.name.to_string(),
        healthy: problem.is_none(),
        since: wall(match (&seen.failing, &seen.position.blocked) {
            (Some(failing), _) if state == ConsumerState::Failing => failing.since,
            (_, Some(blocked)) if state == ConsumerState::Blocked => {
                seen.now.checked_sub(blocked.lasted).unwrap_or(seen.phase_at)
            }
            _ => seen.phase_at,
        }),
        state,
        problem,
        stalled,
        last_progress: seen.progress_at.map(wall),
        cursor: seen.settled.clone(),
        last_event_id: seen.handed.clone(),
        behind: seen.position.behind,
        blocked: seen.position.blocked.clone(),
        last_error: seen.last_error.as_ref().map(last_error),
        events: seen.events,
        runs: seen.runs,
        failures: seen.failures,
    }
}

fn state(seen: &Snapshot) -> ConsumerState {
    let failing = seen.failing.is_some() && !has_recovered(seen);
    match seen.phase {
        Phase::NotStarted => ConsumerState::NotStarted,
        Phase::Ended if seen.ending == Some(Ending::Intended) => ConsumerState::Stopped,
        _ if failing => ConsumerState::Failing,
        Phase::Ended => ConsumerState::Stopped,
        Phase::Starting => ConsumerState::Starting,
        Phase::WaitingForLag => ConsumerState::WaitingForLag,
        Phase::Waiting if seen.position.blocked.is_some() => ConsumerState::Blocked,
        Phase::Busy | Phase::Waiting if is_behind(seen) => ConsumerState::Behind,
        Phase::Waiting => ConsumerState::WaitingForEvents,
        Phase::Busy => ConsumerState::Running,
    }
}

/// Whether a failure is over though no cursor moved.
pub(crate) fn has_recovered(seen: &Snapshot) -> bool {
    let at_an_event = seen.failing.as_ref().is_some_and(|failing| failing.event_id.is_some());
    let waits_at_head = seen.phase == Phase::Waiting
        && !is_behind(seen)
        && seen.position.blocked.is_none()
        && seen.unsettled_at.is_none();
    !at_an_event && waits_at_head && seen.now.saturating_duration_since(seen.phase_at) >= RECOVERED_AFTER
}

fn is_behind(seen: &Snapshot) -> bool {
    seen.position.behind.is_some_and(|behind| behind > 0)
}

/// For how long it has been without progress though it is not at the head.
fn stalled(seen: &Snapshot) -> Duration {
    let elapsed = |since| seen.now.saturating_duration_since(since);
    let since_progress = elapsed(seen.progress_at.unwrap_or(seen.phase_at));
    let unsettled = seen.unsettled_at.map_or(Duration::ZERO, elapsed);
    let besides = match seen.phase {
        Phase::Starting => elapsed(seen.phase_at),
        Phase::Busy => since_progress.min(elapsed(seen.phase_at)),
        Phase::Waiting => match &seen.position.blocked {
            Some(blocked) => blocked.lasted.min(since_progress),
            None => seen.behind_since.map_or(Duration::ZERO, elapsed),
        },
        Phase::Ended if seen.ending != Some(Ending::Intended) => elapsed(seen.phase_at),
        Phase::NotStarted | Phase::WaitingForLag | Phase::Ended => Duration::ZERO,
    };
    unsettled.max(besides)
}

fn problem(seen: &Snapshot, state: ConsumerState, stalled: Duration, patience: Duration) -> Option<String> {
    match state {
        ConsumerState::NotStarted => return Some("it was never started".to_owned()),
        ConsumerState::Failing => {
            let message = seen.last_error.as_ref().map_or_else(String::new, |error| error.message.clone());
            return Some(message);
        }
        ConsumerState::Starting if !seen.followed => return Some("it has not opened its stream yet".to_owned()),
        _ if stalled <= patience => return None,
        _ => {}
    }
    let seconds = stalled.as_secs();
    let unfinished = || match &seen.handed {
        Some(handed) if seen.unsettled_at.is_some() => {
            format!("nothing was finished for {seconds} s; the event that was handed over last is {handed}")
        }
        _ => format!("no progress for {seconds} s"),
    };
    Some(match (state, &seen.position) {
        (ConsumerState::Stopped, _) => format!("it ended {seconds} s ago and was not run again"),
        (ConsumerState::Starting, _) => format!("its stream has not opened for {seconds} s"),
        (ConsumerState::Blocked, position) if seen.unsettled_at.is_none() => {
            position.blocked.as_ref().map_or_else(unfinished, ToString::to_string)
        }
        _ => unfinished(),
    })
}

fn last_error(failure: &Failure) -> LastError {
    LastError {
        message: failure.message.clone(),
        at: wall(failure.at),
        event_id: failure.event_id.clone(),
        foreign_id: failure.foreign_id.clone(),
    }
}
