//! What can be asked for, and what becomes of it.

use std::{collections::BTreeSet, fmt, time::Duration};

use jiff::Timestamp;

use super::{
    Action, Allowance, Author, Change, Entry, Governor, Granted, Hold, Key, Order, PortName, Quarantine, Refusal,
    Sanction, Subject, Target, memory, time,
};

/// The host as it is at the moment of a request.
pub struct World<'a> {
    /// Ports that sent something lately.
    pub active_ports: usize,
    /// Clients of a port that did.
    pub active_clients: &'a dyn Fn(&PortName) -> usize,
    /// Clients of a port that keep to their limits and are somebody else's than the machine that would be blamed.
    pub bystanders: &'a dyn Fn(&PortName) -> usize,
    /// Whether the port is guarded.
    pub is_here: &'a dyn Fn(&PortName) -> bool,
    /// Why somebody must not be sanctioned, as half a sentence: a server, a gateway, the host itself, trusted, on the
    /// allowlist of the configuration, or protected in the inventory.
    pub protection: &'a dyn Fn(&Subject) -> Option<String>,
    /// Too much is in trouble for anybody to be to blame.
    pub systemic: bool,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Put somebody into quarantine.
    Quarantine {
        /// Whom. One call names one, unless `max` and `confirm` both say how many.
        targets: Vec<Target>,
        /// What.
        sanction: Sanction,
        /// For how long; none: as long as the rules say.
        ttl: Option<Duration>,
        /// How many the call may name; none: 1.
        max: Option<usize>,
        /// How many it does name.
        confirm: Option<usize>,
    },
    /// Let the quarantine of this target go on for at most so long: it still sends too much. Only the engine asks this.
    Extend(Target, Duration),
    /// End a quarantine, by its number.
    Release(u64),
    /// End a quarantine, by whom it covers.
    ReleaseTarget(Target),
    /// Stop all automatic quarantine.
    Hold,
    /// Let it go on.
    EndHold,
    /// Let somebody's packets pass, whatever happens; none: for good.
    Allow(Subject, Option<Duration>),
    /// Not any more.
    Disallow(Subject),
    /// Make everything as it was then.
    Undo(Timestamp),
}

impl Governor {
    /// Decides about a request, and changes the state if it is granted.
    ///
    /// # Errors
    /// A [`Refusal`], and nothing has changed.
    pub fn ask(
        &mut self,
        now: Timestamp,
        world: &World<'_>,
        author: &Author,
        request: &Request,
        reason: &str,
    ) -> Result<Granted, Refusal> {
        let mut wanted = Wanted { now, author, reason, places: Vec::new() };
        match request {
            Request::Quarantine { targets, sanction, ttl, max, confirm } => {
                let targets = self.named(world, targets, *max, *confirm)?;
                if author.is_engine() {
                    self.may_begin(now, world, &targets)?;
                }
                for target in targets {
                    wanted.places.push(self.quarantine(now, author, reason, target, *sanction, *ttl)?);
                }
            }
            Request::Extend(target, more) => wanted.places.push(self.extended(now, world, target, *more)?),
            Request::Release(id) => {
                let quarantine = self.state.by_id(*id).ok_or(Refusal::NoSuchQuarantine(*id))?;
                wanted.places.push((Key::Quarantine(quarantine.target.clone()), None));
            }
            Request::ReleaseTarget(target) => {
                if !self.state.quarantines.contains_key(target) {
                    return Err(Refusal::NotQuarantined(target.clone()));
                }
                wanted.places.push((Key::Quarantine(target.clone()), None));
            }
            Request::Hold => {
                let hold = Hold { author: author.clone(), reason: reason.to_owned(), since: now };
                let kept = self.state.hold.clone().unwrap_or(hold);
                wanted.places.push((Key::Hold, Some(Entry::Hold(kept))));
            }
            Request::EndHold => wanted.places.push((Key::Hold, None)),
            Request::Allow(subject, ttl) => {
                if !(world.is_here)(&subject.port) {
                    return Err(Refusal::NotHere { subject: subject.clone() });
                }
                wanted.places.extend(self.allowance(now, author, reason, subject, *ttl));
            }
            Request::Disallow(subject) => {
                if !self.state.allowed.contains_key(subject) {
                    return Err(Refusal::NotAllowed(subject.clone()));
                }
                wanted.places.push((Key::Allowed(subject.clone()), None));
            }
            Request::Undo(since) => {
                wanted.places = self.before(now, world, *since)?;
                self.take_back(*since);
            }
        }
        Ok(self.apply(wanted))
    }

    /// Ends what has reached its time.
    pub fn tick(&mut self, now: Timestamp) -> Granted {
        let quarantines = self.state.quarantines.values().filter(|quarantine| quarantine.until <= now);
        let quarantines = quarantines.map(|quarantine| Key::Quarantine(quarantine.target.clone()));
        let allowed = self.state.allowed.iter().filter(|(_, allowance)| allowance.until.is_some_and(|end| end <= now));
        let keys: Vec<Key> = quarantines.chain(allowed.map(|(subject, _)| Key::Allowed(subject.clone()))).collect();
        self.memory.forget(&self.rules, now);
        self.began.retain(|began| time::between(*began, now) < self.rules.window);
        self.pardoned.retain(|_, end| *end > now);
        let mut granted = Granted::default();
        for key in keys {
            self.change(now, None, "its time is over", (key, None), &mut granted);
        }
        granted
    }

    /// The targets of a request, if it may name these.
    fn named(
        &self,
        world: &World<'_>,
        targets: &[Target],
        max: Option<usize>,
        confirm: Option<usize>,
    ) -> Result<BTreeSet<Target>, Refusal> {
        let targets: BTreeSet<Target> = targets.iter().cloned().collect();
        let named = targets.len();
        if named == 0 || targets.iter().any(|target| target.subjects.is_empty()) {
            return Err(Refusal::Empty);
        }
        match (max, confirm) {
            (None, None) if named == 1 => {}
            (None, None) => return Err(Refusal::Several { named }),
            (max, confirm) => {
                let (max, confirmed) = (max.unwrap_or(1), confirm.unwrap_or(0));
                if confirmed != named || max < named {
                    return Err(Refusal::Unconfirmed { named, max, confirmed });
                }
            }
        }
        for subject in targets.iter().flat_map(|target| &target.subjects) {
            self.may_be_sanctioned(world, subject)?;
        }
        Ok(targets)
    }

    fn may_be_sanctioned(&self, world: &World<'_>, subject: &Subject) -> Result<(), Refusal> {
        let subject = subject.clone();
        if !(world.is_here)(&subject.port) {
            return Err(Refusal::NotHere { subject });
        }
        if let Some(why) = (world.protection)(&subject) {
            return Err(Refusal::Protected { subject, why });
        }
        let port = Subject { client: None, ..subject.clone() };
        let on_it = self.state.allowed.keys().any(|allowed| *allowed == subject || *allowed == port);
        if on_it {
            return Err(Refusal::Protected { subject, why: "it is on the allowlist".to_owned() });
        }
        Ok(())
    }

    /// Whether the engine may begin a quarantine now. Of one target: it never asks for several.
    fn may_begin(&self, now: Timestamp, world: &World<'_>, targets: &BTreeSet<Target>) -> Result<(), Refusal> {
        if !self.rules.automatic {
            return Err(Refusal::NotAutomatic);
        }
        if self.state.hold.is_some() {
            return Err(Refusal::OnHold);
        }
        if world.systemic {
            return Err(Refusal::Systemic);
        }
        if targets.len() > 1 {
            return Err(Refusal::Several { named: targets.len() });
        }
        for target in targets {
            let left = self.pardoned.get(target).map_or(Duration::ZERO, |end| time::between(now, *end));
            if !left.is_zero() {
                return Err(Refusal::Pardoned { target: target.clone(), left });
            }
        }
        let new = targets.iter().filter(|target| !self.state.quarantines.contains_key(target));
        new.into_iter().try_for_each(|target| self.within_caps(now, world, target))
    }

    fn quarantine(
        &self,
        now: Timestamp,
        author: &Author,
        reason: &str,
        target: Target,
        sanction: Sanction,
        ttl: Option<Duration>,
    ) -> Result<(Key, Option<Entry>), Refusal> {
        let repeat = self.memory.times(&self.rules, now, &target);
        let most = if author.is_engine() { self.rules.longest } else { self.rules.longest_by_hand };
        let length = ttl.unwrap_or_else(|| memory::length(&self.rules, &target, repeat));
        if length.is_zero() || length > most {
            return Err(Refusal::Ttl { asked: length, most });
        }
        let key = Key::Quarantine(target.clone());
        let present = self.state.quarantines.get(&target);
        // What is asked for again is there already, and neither starts anew nor becomes the engine's.
        if let Some(present) = present
            && author.is_engine()
        {
            return Ok((key, Some(Entry::Quarantine(present.clone()))));
        }
        let quarantine = Quarantine {
            id: present.map_or(self.state.next_id, |present| present.id),
            target,
            sanction,
            author: author.clone(),
            reason: reason.to_owned(),
            since: present.map_or(now, |present| present.since),
            until: time::after(now, length),
            found: false,
            repeat,
        };
        Ok((key, Some(Entry::Quarantine(quarantine))))
    }

    /// The engine's quarantine, with an end that is later, but never later than the longest one ends.
    fn extended(
        &self,
        now: Timestamp,
        world: &World<'_>,
        target: &Target,
        more: Duration,
    ) -> Result<(Key, Option<Entry>), Refusal> {
        let present = self.state.quarantines.get(target).ok_or_else(|| Refusal::NotQuarantined(target.clone()))?;
        target.subjects.iter().try_for_each(|subject| self.may_be_sanctioned(world, subject))?;
        if self.state.hold.is_some() {
            return Err(Refusal::OnHold);
        }
        if world.systemic {
            return Err(Refusal::Systemic);
        }
        let latest = time::after(present.since, self.rules.longest);
        let until = if present.author.is_engine() {
            present.until.max(time::after(now, more).min(latest))
        } else {
            present.until
        };
        let quarantine = Quarantine { until, ..present.clone() };
        Ok((Key::Quarantine(target.clone()), Some(Entry::Quarantine(quarantine))))
    }

    /// An entry of the allowlist. Whoever it protects is in quarantine no longer.
    fn allowance(
        &self,
        now: Timestamp,
        author: &Author,
        reason: &str,
        subject: &Subject,
        ttl: Option<Duration>,
    ) -> Vec<(Key, Option<Entry>)> {
        let until = ttl.map(|ttl| time::after(now, ttl));
        let allowance = Allowance { author: author.clone(), reason: reason.to_owned(), since: now, until };
        let covered = |quarantine: &&Quarantine| {
            let mut subjects = quarantine.target.subjects.iter();
            subjects.any(|one| one == subject || (subject.client.is_none() && one.port == subject.port))
        };
        let ended = self.state.quarantines.values().filter(covered);
        let mut places: Vec<_> = ended.map(|quarantine| (Key::Quarantine(quarantine.target.clone()), None)).collect();
        places.push((Key::Allowed(subject.clone()), Some(Entry::Allowed(allowance))));
        places
    }

    fn apply(&mut self, wanted: Wanted<'_>) -> Granted {
        let mut granted = Granted::default();
        for place in wanted.places {
            self.change(wanted.now, Some(wanted.author), wanted.reason, place, &mut granted);
        }
        granted
    }

    /// Makes one change, if it is one, and says what is to be done about it.
    fn change(
        &mut self,
        now: Timestamp,
        author: Option<&Author>,
        reason: &str,
        (key, after): (Key, Option<Entry>),
        granted: &mut Granted,
    ) {
        let before = self.state.get(&key);
        if before == after {
            return;
        }
        self.remember(now, &key, before.as_ref(), after.as_ref());
        self.pardon(now, author, &key, after.as_ref());
        self.state.set(&key, after.clone());
        granted.orders.extend(order(&key, before.as_ref(), after.as_ref()));
        let change = Change { at: now, author: author.cloned(), reason: reason.to_owned(), key, before, after };
        self.changes.push(change.clone());
        let surplus = self.changes.len().saturating_sub(self.rules.undo_depth);
        if let Some(forgotten) = self.changes.drain(..surplus).next_back() {
            self.known_since = Some(forgotten.at);
        }
        granted.changes.push(change);
    }

    /// Whom a person lets out, the engine leaves alone for a while.
    fn pardon(&mut self, now: Timestamp, author: Option<&Author>, key: &Key, after: Option<&Entry>) {
        let Key::Quarantine(target) = key else { return };
        match after {
            None if author.is_some_and(|author| !author.is_engine()) => {
                self.pardoned.insert(target.clone(), time::after(now, self.rules.first));
            }
            Some(_) => _ = self.pardoned.remove(target),
            None => {}
        }
    }

    /// What should not have been does not count for the next one.
    fn take_back(&mut self, since: Timestamp) {
        let began = self.changes.iter().filter(|change| change.at >= since && change.before.is_none());
        for change in began {
            if let (Key::Quarantine(target), Some(Entry::Quarantine(new))) = (&change.key, &change.after)
                && new.author.is_engine()
            {
                self.memory.take_back(target);
            }
        }
    }

    /// What a change of a quarantine means for the next ones.
    fn remember(&mut self, now: Timestamp, key: &Key, before: Option<&Entry>, after: Option<&Entry>) {
        let Key::Quarantine(target) = key else { return };
        match (before, after) {
            (None, Some(Entry::Quarantine(new))) => {
                // One that is put back by undoing is not new.
                let is_new = new.id >= self.state.next_id;
                self.state.next_id = self.state.next_id.max(new.id.saturating_add(1));
                if new.author.is_engine() && is_new {
                    self.began.push(now);
                    self.memory.note(target, new.repeat + 1, new.until);
                }
            }
            (Some(_), Some(Entry::Quarantine(new))) => self.memory.ends(target, new.until),
            (Some(_), _) => self.memory.ends(target, now),
            (None, _) => {}
        }
    }
}

/// Changes that are to be made together.
struct Wanted<'a> {
    now: Timestamp,
    author: &'a Author,
    reason: &'a str,
    places: Vec<(Key, Option<Entry>)>,
}

/// What is to be done when this place changes.
fn order(key: &Key, before: Option<&Entry>, after: Option<&Entry>) -> Option<Order> {
    let action = match (key, before, after) {
        (Key::Quarantine(_), _, Some(Entry::Quarantine(new))) => Action::Impose(new.clone()),
        (Key::Quarantine(_), Some(Entry::Quarantine(old)), None) => Action::Lift(old.clone()),
        (Key::Allowed(subject), _, Some(Entry::Allowed(new))) => Action::Allow(subject.clone(), new.until),
        (Key::Allowed(subject), _, None) => Action::Disallow(subject.clone()),
        _ => return None,
    };
    Some(Order::new(action))
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("active_ports", &self.active_ports).field("systemic", &self.systemic).finish()
    }
}
