//! A step is done when a second look says so; retrying, resuming and repairing are all the same thing: look again.

mod course;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::facts::Facts;
use crate::host::Host;
use crate::host::apply::Failure;
use crate::look::Look;
use crate::state::{StepRecord, Verdict};
use crate::step::{Change, Finding, Lane, Stage, Status, Step};
use course::{Course, Work, millis};

/// How often a step's changes may be made in one round without it becoming true.
const ATTEMPTS: usize = 4;

/// How often different changes may follow each other in one step without a pause.
const UNPAUSED: usize = 12;

/// What happens while the engine works, for whoever shows or records it.
pub enum Event<'a> {
    /// A step is looked at for the first time in this round.
    Started(&'a dyn Step),
    /// A change is about to be made.
    Changing(&'a dyn Step, &'a Change),
    /// A change was made, or failed.
    Changed(&'a dyn Step, &'a Change, Duration, Option<&'a Failure>),
    /// A step waits; it is looked at again after the given time.
    Waiting(&'a dyn Step, &'a StepRecord, Duration),
    /// A step's last word in this round.
    Ended(&'a dyn Step, &'a StepRecord),
    /// All steps of a lane have ended; their records, in order.
    LaneEnded(Lane, &'a [StepRecord]),
}

/// Whoever shows or records what happens.
pub trait Observer {
    /// Called in order, from one thread.
    fn event(&self, event: &Event<'_>);
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event<'_>) {}
}

/// A request to end, e.g. by SIGTERM: heard at the next change's edge.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop and the switch for it.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (switch, receiver) = watch::channel(false);
        (switch, Self(receiver))
    }

    /// Whether it was asked for.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Sleeps, or returns early when the stop is asked for.
    pub async fn sleep(&self, time: Duration) {
        let mut receiver = self.0.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            stopped = receiver.wait_for(|stop| *stop) => if stopped.is_err() { tokio::time::sleep(time).await },
        }
    }
}

/// Looks at steps and, in [`Engine::bring_up`] alone, makes their changes.
pub struct Engine<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The effective configuration.
    pub config: &'a Config,
    /// What is known of the machine.
    pub facts: &'a Facts,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// A request to end.
    pub stop: Stop,
}

impl Engine<'_> {
    /// One look at one step, within its time limit. An error is "could not look".
    pub async fn look(&self, step: &dyn Step) -> Result<Status, String> {
        self.within_limit(step, step.check(self.view())).await
    }

    /// Makes every step true, each verified by looking again: those of a lane in their order, both lanes at once. `patience` limits
    /// all waiting together. The records come in the order of `steps`; what a stop left out is missing.
    pub async fn bring_up(&self, steps: &[Box<dyn Step>], patience: Duration) -> Vec<StepRecord> {
        let course = Course::begin(steps, patience);
        tokio::join!(self.bring_up_lane(Lane::Node, &course), self.bring_up_lane(Lane::Gpu, &course));
        course.records()
    }

    async fn bring_up_lane(&self, lane: Lane, course: &Course<'_>) {
        for step in course.steps.iter().map(Box::as_ref).filter(|step| step.lane() == lane) {
            let missing = course.missing(step).await;
            if self.stop.requested() {
                return course.cut_short();
            }
            let started = course.began.elapsed();
            self.observer.event(&Event::Started(step));
            let mut work = Work::begin(step, started);
            if !self.host.files.is_running_system() && step.stage() != Stage::Image {
                work.end(Verdict::Left, "needs the running machine".to_owned(), None);
            } else if let Some(missing) = missing {
                work.end(Verdict::Unknown, format!("not looked at: it needs {missing} first"), None);
            } else {
                self.bring_up_step(step, &mut work, course).await;
            }
            work.record.took = millis(course.began.elapsed().saturating_sub(started));
            self.observer.event(&Event::Ended(step, &work.record));
            course.put(work.record);
        }
        course.end(lane);
        self.observer.event(&Event::LaneEnded(lane, &course.records_of(lane)));
    }

    /// Takes away what a step made, verified by looking again.
    pub async fn undo(&self, step: &dyn Step) -> StepRecord {
        let began = Instant::now();
        self.observer.event(&Event::Started(step));
        let mut work = Work::begin(step, Duration::ZERO);
        if let Err(why) = self.undo_step(step, &mut work).await {
            work.end(Verdict::Broken, why, None);
        }
        work.record.took = millis(began.elapsed());
        self.observer.event(&Event::Ended(step, &work.record));
        work.record
    }

    async fn undo_step(&self, step: &dyn Step, work: &mut Work) -> Result<(), String> {
        let for_now = async || {
            let mut changes = self.look_at_undoing(step).await?;
            self.leave_for_boot(&mut changes);
            Ok::<_, String>(changes)
        };
        let changes = for_now().await?;
        self.apply(step, work, &changes).await.map_err(|failure| failure.to_string())?;
        match for_now().await?.as_slice() {
            [] => work.end(Verdict::Ready, "nothing of it is left".to_owned(), None),
            [left, ..] => work.end(Verdict::Pending, format!("something is left: {left}"), None),
        }
        Ok(())
    }

    /// What would take away what a step made, within its time limit. An error is "could not look", or "cannot be undone".
    pub async fn look_at_undoing(&self, step: &dyn Step) -> Result<Vec<Change>, String> {
        match self.within_limit(step, step.undo(self.view())).await? {
            Some(changes) => Ok(changes),
            None => Err(format!("what {} made cannot be taken away by itself", step.name())),
        }
    }

    fn view(&self) -> Look<'_> {
        Look::new(self.host, self.config, self.facts)
    }

    async fn within_limit<T>(&self, step: &dyn Step, looking: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
        match tokio::time::timeout(step.limit(), looking).await {
            Ok(looked) => looked.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("the look at {} had not ended after {} s", step.name(), step.limit().as_secs())),
        }
    }

    async fn bring_up_step(&self, step: &dyn Step, work: &mut Work, course: &Course<'_>) {
        let mut last: Vec<Change> = Vec::new();
        let (mut attempts, mut applied) = (0, 0);
        let mut backoff = pauses();
        let own_deadline = Instant::now().checked_add(step.patience());
        loop {
            match self.look(step).await {
                Ok(Status::Ready(evidence)) => return work.end(Verdict::Ready, evidence, None),
                Ok(Status::Broken(finding)) => return work.end(Verdict::Broken, finding.to_string(), Some(finding)),
                Ok(Status::Waiting(finding)) => work.stand(Verdict::Waiting, finding.to_string(), Some(finding)),
                Err(why) => work.stand(Verdict::Unknown, why, None),
                Ok(Status::Pending { why, mut changes }) => {
                    let left = self.leave_for_boot(&mut changes);
                    if changes.is_empty() {
                        return work.end(Verdict::Ready, left, None);
                    }
                    // Other changes than last time are progress; the same ones again cost patience.
                    let progress = changes != last;
                    attempts = if progress { 1 } else { attempts + 1 };
                    if progress {
                        backoff = pauses();
                    }
                    match self.apply(step, work, &changes).await {
                        Ok(()) if self.stop.requested() => {
                            return work.end(Verdict::Pending, "stopped before it was done".to_owned(), None);
                        }
                        Ok(()) => {
                            work.record.because.get_or_insert_with(|| why.clone());
                            work.stand(Verdict::Pending, why.clone(), None);
                            // Changes that alternate look like progress for ever: they get pauses too after a while.
                            applied += 1;
                            if progress && applied < UNPAUSED {
                                last = changes;
                                continue;
                            }
                        }
                        Err(failure) => match step.judge(&failure, self.view()) {
                            Some(Status::Broken(finding)) => {
                                return work.end(Verdict::Broken, finding.to_string(), Some(finding));
                            }
                            Some(Status::Waiting(finding)) => {
                                // The world outside failed, not the change: that costs patience, and no attempt.
                                attempts -= 1;
                                work.stand(Verdict::Waiting, finding.to_string(), Some(finding));
                            }
                            _ => {
                                let finding = failed(step, &why, &failure);
                                work.stand(Verdict::Pending, finding.to_string(), Some(finding));
                            }
                        },
                    }
                    if attempts >= ATTEMPTS {
                        let finding = work.record.finding.take().unwrap_or_else(|| does_not_hold(step, &why, &changes));
                        return work.end(Verdict::Broken, finding.to_string(), Some(finding));
                    }
                    last = changes;
                }
            }
            let asked = work.record.finding.as_ref().and_then(|finding| finding.leave_alone).unwrap_or_default();
            let pause = asked.min(LONGEST_ASKED) + backoff.next().unwrap_or(LONGEST_PAUSE);
            let later = Instant::now() + pause;
            if course.is_over_for(step.lane(), later) || own_deadline.is_some_and(|own| later > own) || self.stop.requested() {
                return;
            }
            self.observer.event(&Event::Waiting(step, &work.record, pause));
            self.stop.sleep(pause).await;
            if self.stop.requested() {
                return;
            }
        }
    }

    /// Takes out of `changes` what an image cannot do, and says what it was.
    fn leave_for_boot(&self, changes: &mut Vec<Change>) -> String {
        if self.host.files.is_running_system() {
            return String::new();
        }
        let left: Vec<String> = changes.iter().filter(|change| change.needs_running_system()).map(ToString::to_string).collect();
        changes.retain(|change| !change.needs_running_system());
        format!("left for the boot: {}", left.join(", "))
    }

    async fn apply(&self, step: &dyn Step, work: &mut Work, changes: &[Change]) -> Result<(), Failure> {
        for change in changes {
            if self.stop.requested() {
                return Ok(());
            }
            self.observer.event(&Event::Changing(step, change));
            let began = Instant::now();
            let done = self.host.apply(change).await;
            self.observer.event(&Event::Changed(step, change, began.elapsed(), done.as_ref().err()));
            done?;
            work.record.changes.push(change.to_string());
        }
        Ok(())
    }
}

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who asks to be left alone is believed for so long: whoever answers need not have proved who it is.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Pauses that double from 200 ms to 30 s, each drawn between nothing and all of it ("full jitter").
fn pauses() -> impl Iterator<Item = Duration> {
    let schedule = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times();
    schedule.build().map(|pause| pause.mul_f64(fastrand::f64()).max(Duration::from_millis(20)))
}

fn failed(step: &dyn Step, why: &str, failure: &Failure) -> Finding {
    Finding::new(
        "change-failed",
        format!("{} could not be put right", step.name()),
        format!("{why}; {failure}"),
        "mend what the error names, then: gpuk-agent up",
    )
}

fn does_not_hold(step: &dyn Step, why: &str, changes: &[Change]) -> Finding {
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    Finding::new(
        "change-does-not-hold",
        format!("{} does not stay as it was put", step.name()),
        format!("{why}, although this was done {ATTEMPTS} times: {}", changes.join(", ")),
        "something else on this machine undoes it; look for it, then: gpuk-agent up",
    )
}

#[cfg(test)]
mod tests;
