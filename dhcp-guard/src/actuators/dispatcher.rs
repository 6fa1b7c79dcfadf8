//! Hands jobs to the actuators, and their outcomes back, without anybody waiting for anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{task::JoinSet, time::timeout};

use super::{Actuator, Done, Failure, Job, Outcome, What, queue::Queue};
use crate::config::ActuatorName;

/// Jobs that may wait for one actuator. A quarantine is two, and automatic ones are capped at some in ten minutes.
const JOBS: usize = 256;
/// Outcomes that may wait for whoever reads them.
const OUTCOMES: usize = 1024;

/// The running actuators: a task for each, which does its jobs one after the other. Whoever drops it stops them all, and
/// the jobs that they are at.
#[derive(Debug)]
pub struct Dispatcher {
    tasks: JoinSet<()>,
    handle: Handle,
}

/// The way in; clones are the same.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Lanes>);

#[derive(Debug)]
struct Lanes {
    lanes: Vec<Lane>,
    outcomes: Arc<Sender>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Lane {
    name: ActuatorName,
    jobs: Arc<Queue<Arc<Job>>>,
}

/// The way back.
#[derive(Debug)]
pub struct Outcomes {
    queue: Arc<Queue<Outcome>>,
}

/// Held by all who have outcomes; the last one closes the queue.
#[derive(Debug)]
struct Sender {
    queue: Arc<Queue<Outcome>>,
    lost: AtomicU64,
}

impl Dispatcher {
    /// Starts a task for each actuator, in the runtime of the caller.
    #[must_use]
    pub fn start(actuators: Vec<Arc<dyn Actuator>>) -> (Handle, Outcomes, Self) {
        Self::with_capacity(actuators, JOBS, OUTCOMES)
    }

    fn with_capacity(actuators: Vec<Arc<dyn Actuator>>, jobs: usize, outcomes: usize) -> (Handle, Outcomes, Self) {
        let queue = Arc::new(Queue::new(outcomes, |_| true));
        let sender = Arc::new(Sender { queue: Arc::clone(&queue), lost: AtomicU64::new(0) });
        let mut tasks = JoinSet::new();
        let mut lanes = Vec::new();
        for actuator in actuators {
            // To forget a beginning is to be too mild; to forget an end is to leave somebody shut out.
            let jobs = Arc::new(Queue::new(jobs, |job: &Arc<Job>| job.what == What::Impose));
            lanes.push(Lane { name: actuator.name(), jobs: Arc::clone(&jobs) });
            tasks.spawn(work(actuator, jobs, Arc::clone(&sender)));
        }
        let handle = Handle(Arc::new(Lanes { lanes, outcomes: sender, dropped: AtomicU64::new(0) }));
        (handle.clone(), Outcomes { queue }, Self { tasks, handle })
    }

    /// Takes no more jobs, gives those that are waiting so much time, and stops what is left.
    pub async fn finish(mut self, grace: Duration) {
        for lane in &self.handle.0.lanes {
            lane.jobs.close();
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(grace, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

impl Handle {
    /// Queues a job for every actuator that it asks for, and returns at once. Where too many are waiting the oldest
    /// impose is dropped, or, if there is none, the oldest; it is counted, and has an outcome.
    pub fn dispatch(&self, job: Job) {
        let job = Arc::new(job);
        for lane in self.0.lanes.iter().filter(|lane| job.asks_for(lane.name)) {
            if let Some(dropped) = lane.jobs.push(Arc::clone(&job)) {
                self.0.dropped.fetch_add(1, Relaxed);
                self.0.outcomes.send(outcome(lane.name, &dropped, Duration::ZERO, Err(Failure::Dropped)));
            }
        }
    }

    /// Jobs that were dropped, each once for every actuator that it was meant for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Outcomes that nobody came to read in time.
    #[must_use]
    pub fn lost_outcomes(&self) -> u64 {
        self.0.outcomes.lost.load(Relaxed)
    }
}

impl Outcomes {
    /// Waits for the next one; none: there will be no more. May be dropped while it waits: nothing is lost.
    pub async fn recv(&mut self) -> Option<Outcome> {
        self.queue.pop().await
    }
}

impl Sender {
    fn send(&self, outcome: Outcome) {
        if self.queue.push(outcome).is_some() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// One actuator's life.
async fn work(actuator: Arc<dyn Actuator>, jobs: Arc<Queue<Arc<Job>>>, outcomes: Arc<Sender>) {
    while let Some(job) = jobs.pop().await {
        let start = Instant::now();
        let result = in_time(&actuator, &job).await;
        outcomes.send(outcome(actuator.name(), &job, start.elapsed(), result));
    }
}

/// One job, in a task of its own: whatever it does, even panic, this one goes on. Whoever drops this stops it.
async fn in_time(actuator: &Arc<dyn Actuator>, job: &Arc<Job>) -> Done {
    let limit = actuator.timeout();
    let (actuator, job) = (Arc::clone(actuator), Arc::clone(job));
    let mut task = JoinSet::new();
    task.spawn(async move {
        match job.what {
            What::Impose => actuator.impose(&job).await,
            What::Lift => actuator.lift(&job).await,
        }
    });
    match timeout(limit, task.join_next()).await {
        Ok(Some(Ok(done))) => done,
        Ok(_) => Err(Failure::Failed("it panicked: please report this, with the agent's log".to_owned())),
        Err(_) => Err(Failure::TooSlow(limit, None)),
    }
}

fn outcome(actuator: ActuatorName, job: &Job, took: Duration, result: Done) -> Outcome {
    let (quarantine, what, number) = (job.report.id, job.what, job.number);
    Outcome { actuator, quarantine, what, number, at: Timestamp::now(), took, result }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use super::*;
    use crate::actuators::{
        Work,
        testing::{job, next},
    };

    /// Hangs, panics, or writes down what it is asked for.
    struct Fake {
        name: ActuatorName,
        behaviour: fn(&Job) -> Behaviour,
        did: Arc<Mutex<Vec<(What, u64)>>>,
    }

    enum Behaviour {
        Hang,
        Panic,
        Act,
    }

    impl Fake {
        fn new(name: ActuatorName, behaviour: fn(&Job) -> Behaviour) -> Self {
            Self { name, behaviour, did: Arc::default() }
        }

        fn act<'a>(&'a self, job: &'a Job) -> Work<'a> {
            Box::pin(async move {
                match (self.behaviour)(job) {
                    Behaviour::Hang => pending().await,
                    Behaviour::Panic => panic!("on purpose"),
                    Behaviour::Act => self.did.lock().unwrap().push((job.what, job.report.id)),
                }
                Ok(None)
            })
        }
    }

    impl Actuator for Fake {
        fn name(&self) -> ActuatorName {
            self.name
        }

        fn timeout(&self) -> Duration {
            Duration::from_millis(200)
        }

        fn impose<'a>(&'a self, job: &'a Job) -> Work<'a> {
            self.act(job)
        }

        fn lift<'a>(&'a self, job: &'a Job) -> Work<'a> {
            self.act(job)
        }
    }

    #[tokio::test]
    async fn dispatch_returns_at_once_while_every_actuator_hangs() {
        let names = [ActuatorName::LinkDown, ActuatorName::Command, ActuatorName::Webhook];
        let hung = names.map(|name| Arc::new(Fake::new(name, |_| Behaviour::Hang)) as Arc<dyn Actuator>);
        let (handle, outcomes, dispatcher) = Dispatcher::start(hung.into());
        tokio::task::yield_now().await;
        let start = Instant::now();
        for id in 0..10_000 {
            handle.dispatch(job(What::Impose, id));
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "10,000 in {took:?}");
        assert!(handle.dropped() >= 3 * (10_000 - 256 - 1), "{}", handle.dropped());
        assert!(handle.lost_outcomes() > 0, "nobody reads them");
        dispatcher.finish(Duration::ZERO).await;
        drop(outcomes);
    }

    #[tokio::test]
    async fn one_that_hangs_or_panics_delays_only_itself() {
        let hung = Fake::new(ActuatorName::LinkDown, |_| Behaviour::Hang);
        let panics = Fake::new(ActuatorName::Command, |job| match job.report.id {
            1 => Behaviour::Panic,
            _ => Behaviour::Act,
        });
        let good = Fake::new(ActuatorName::Webhook, |_| Behaviour::Act);
        let did = Arc::clone(&good.did);
        let (handle, mut outcomes, _dispatcher) =
            Dispatcher::start(vec![Arc::new(hung), Arc::new(panics), Arc::new(good)]);
        for (what, id) in [(What::Impose, 1), (What::Impose, 2), (What::Lift, 1)] {
            handle.dispatch(job(what, id));
        }
        let mut all = Vec::new();
        for _ in 0..9 {
            all.push(next(&mut outcomes).await);
        }
        assert_eq!(*did.lock().unwrap(), [(What::Impose, 1), (What::Impose, 2), (What::Lift, 1)], "in order");
        let of = |name| all.iter().filter(move |outcome| outcome.actuator == name);
        assert!(of(ActuatorName::Webhook).all(|outcome| outcome.result.is_ok()));
        let hung: Vec<_> = of(ActuatorName::LinkDown).collect();
        assert!(hung.iter().all(|outcome| matches!(outcome.result, Err(Failure::TooSlow(..)))));
        assert_eq!(hung[0].report().error.unwrap(), "not done after 0.2 s, given up");
        assert!(hung[2].report().error.unwrap().starts_with("ending it: "));
        let panicked: Vec<_> = of(ActuatorName::Command).map(|outcome| outcome.result.is_ok()).collect();
        assert_eq!(panicked, [false, true, false]);
    }

    #[tokio::test]
    async fn a_job_goes_to_those_it_asks_for_and_its_end_to_those_who_had_it() {
        let fakes = [ActuatorName::Command, ActuatorName::Webhook].map(|name| Fake::new(name, |_| Behaviour::Act));
        let [command, webhook] = [Arc::clone(&fakes[0].did), Arc::clone(&fakes[1].did)];
        let all = fakes.map(|fake| Arc::new(fake) as Arc<dyn Actuator>);
        let (handle, mut outcomes, dispatcher) = Dispatcher::start(all.into());
        let mut only = job(What::Impose, 1);
        only.interfaces[0].actuators = vec![ActuatorName::Command];
        handle.dispatch(only.clone());
        only.report.outcomes.push(next(&mut outcomes).await.report());
        only.what = What::Lift;
        only.interfaces[0].actuators = vec![ActuatorName::Webhook];
        handle.dispatch(only);
        dispatcher.finish(Duration::from_secs(5)).await;
        assert_eq!(*command.lock().unwrap(), [(What::Impose, 1), (What::Lift, 1)]);
        assert_eq!(*webhook.lock().unwrap(), [(What::Lift, 1)]);
        drop(handle);
        assert_eq!([outcomes.recv().await.is_some(), outcomes.recv().await.is_some()], [true, true]);
        assert_eq!(outcomes.recv().await, None, "all are gone");
    }

    #[tokio::test]
    async fn when_too_many_wait_beginnings_are_dropped_before_ends() {
        let fake = Fake::new(ActuatorName::Webhook, |_| Behaviour::Act);
        let did = Arc::clone(&fake.did);
        let (handle, mut outcomes, dispatcher) = Dispatcher::with_capacity(vec![Arc::new(fake)], 2, 8);
        for (what, id) in [(What::Lift, 1), (What::Impose, 2), (What::Impose, 3), (What::Lift, 4)] {
            handle.dispatch(job(what, id));
        }
        assert_eq!(handle.dropped(), 2);
        let dropped = next(&mut outcomes).await;
        assert_eq!((dropped.quarantine, dropped.result), (2, Err(Failure::Dropped)));
        dispatcher.finish(Duration::from_secs(5)).await;
        assert_eq!(*did.lock().unwrap(), [(What::Lift, 1), (What::Lift, 4)]);
    }
}
