//! Many DHCP clients on one thread, each with the timing of a real one: hundreds of dhclient processes are more than a
//! small machine bears.
//!
//! * [`program`]: when firmware and dhclient ask again.
//! * `machine`: one client, without a socket and without a clock.
//! * `frames`: what comes in.
//! * here: the thread that sends, listens and keeps time for all of them.
//!
//! They are machines without a network stack: they answer ARP for the address of their lease, because a server that
//! renews a lease asks for it, and nothing else.

mod frames;
mod machine;
pub mod program;

use std::{
    collections::HashMap,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use self::{frames::Heard, machine::Machine};
pub use self::{machine::Progress, program::Boot};
use crate::{mac::Mac, packet_socket::PacketSocket, random::Dice, topology::Injection, wait};

/// A frame is no longer.
const LONGEST: usize = 2048;

/// A client that is to be.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its address.
    pub mac: Mac,
    /// Which of the herd's places it is at.
    pub place: usize,
    /// When it is switched on, counted from the herd's start.
    pub on_after: Duration,
    /// What asks for a lease when it is.
    pub boot: Boot,
}

/// Running clients; they end when this is dropped, without a word to the server.
#[derive(Debug)]
pub struct Herd {
    start: Instant,
    progress: Arc<Mutex<Vec<Progress>>>,
    orders: mpsc::Sender<Order>,
    /// None: it is over. A byte in it says that there is an order.
    wake: Option<PipeWriter>,
    keeper: Option<JoinHandle<Result<()>>>,
}

/// What a running herd is told.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// This member is switched off and on.
    PowerCycle(usize),
}

impl Herd {
    /// Starts clients behind these places.
    pub fn start(places: &[Injection], members: &[Member]) -> Result<Self> {
        let sockets = places
            .iter()
            .map(|place| PacketSocket::both_ways(&place.netns, &place.interface))
            .collect::<Result<Vec<_>>>()?;
        let machines: Vec<_> = members.iter().map(|member| (member.place, Machine::new(member))).collect();
        let by_mac = members.iter().enumerate().map(|(index, member)| (member.mac, index)).collect();
        let progress = Arc::new(Mutex::new(vec![Progress::default(); members.len()]));
        let (orders, inbox) = mpsc::channel();
        let (woken, wake) = io::pipe().context("cannot make a pipe")?;
        let start = Instant::now();
        let keeper = Keeper { sockets, machines, by_mac, progress: Arc::clone(&progress), inbox, woken, start };
        let keeper =
            thread::Builder::new().name("herd".into()).spawn(|| keeper.run()).context("cannot start a thread")?;
        Ok(Self { start, progress, orders, wake: Some(wake), keeper: Some(keeper) })
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// How far each member is, in their order.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        lock(&self.progress).clone()
    }

    /// Waits until every member is as it should be; whoever is not is in the error.
    pub fn wait(&self, what: &str, deadline: Duration, is_so: impl Fn(&Progress) -> bool) -> Result<()> {
        wait::until(what, deadline, || Ok(self.progress().iter().all(&is_so))).with_context(|| {
            let progress = self.progress();
            let others: Vec<_> = progress.iter().enumerate().filter(|(_, one)| !is_so(one)).collect();
            let some = &others[..others.len().min(3)];
            format!("{} of {} members of the herd are not there, such as {some:?}", others.len(), progress.len())
        })
    }

    /// Switches members off and on: they forget their leases, as machines without a disk do.
    pub fn power_cycle(&mut self, members: impl IntoIterator<Item = usize>) -> Result<()> {
        for member in members {
            self.orders.send(Order::PowerCycle(member)).context("the herd's thread is gone")?;
        }
        let wake = self.wake.as_mut().context("the herd is over")?;
        wake.write_all(&[1]).context("cannot wake the herd's thread")
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<Vec<Progress>> {
        self.join()?;
        Ok(self.progress())
    }

    fn join(&mut self) -> Result<()> {
        drop(self.wake.take());
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        keeper.join().map_err(|_panic| anyhow!("the herd's thread panicked"))?
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.join();
    }
}

/// The thread's own.
struct Keeper {
    sockets: Vec<PacketSocket>,
    /// With their places.
    machines: Vec<(usize, Machine)>,
    by_mac: HashMap<Mac, usize>,
    progress: Arc<Mutex<Vec<Progress>>>,
    inbox: mpsc::Receiver<Order>,
    woken: PipeReader,
    start: Instant,
}

impl Keeper {
    fn run(mut self) -> Result<()> {
        let mut readable = vec![true; self.sockets.len() + 1];
        loop {
            self.send_what_is_due();
            self.wait(&mut readable)?;
            let (wake, sockets) = readable.split_last().context("there is always the pipe")?;
            for (place, _) in sockets.iter().enumerate().filter(|(_, readable)| **readable) {
                self.listen(place);
            }
            if *wake && !self.obey()? {
                return Ok(());
            }
        }
    }

    fn send_what_is_due(&mut self) {
        let now = self.start.elapsed();
        for index in 0..self.machines.len() {
            while self.machines[index].1.due() <= now {
                let frame = self.machines[index].1.on_time(now);
                self.send(index, frame);
            }
        }
    }

    /// Sends what a machine has to say, and shows how far it is.
    fn send(&self, index: usize, frame: Option<Vec<u8>>) {
        let (place, machine) = &self.machines[index];
        if let Some(frame) = frame {
            // A full queue loses the frame, as a wire would: the client asks again.
            let _ = self.sockets[*place].send(&frame);
        }
        lock(&self.progress)[index] = machine.progress();
    }

    /// Until something comes in by a socket, or is due, or there is an order.
    fn wait(&self, readable: &mut [bool]) -> Result<()> {
        let due = self.machines.iter().map(|(_, machine)| machine.due()).min().unwrap_or(Duration::MAX);
        let timeout = due.saturating_sub(self.start.elapsed()).min(Duration::from_secs(60));
        let sources = self.sockets.iter().map(|socket| socket.as_fd()).chain([self.woken.as_fd()]);
        poll(sources, timeout, readable).context("cannot wait for frames")
    }

    fn listen(&mut self, place: usize) {
        let mut buffer = [0; LONGEST];
        while let Some(frame) = self.sockets[place].receive(&mut buffer) {
            match frames::read(frame) {
                Some(Heard::Reply(reply)) => {
                    let Some(index) = self.by_mac.get(&reply.to).copied() else { continue };
                    let (own_place, machine) = &mut self.machines[index];
                    if *own_place == place {
                        let answer = machine.on_reply(self.start.elapsed(), &reply);
                        self.send(index, answer);
                    }
                }
                Some(Heard::WhoHas(question)) => {
                    let holder = self.holder(place, question.address);
                    if let Some(answer) = holder.map(|mac| question.answer(mac)) {
                        let _ = self.sockets[place].send(&answer);
                    }
                }
                None => {}
            }
        }
    }

    /// Who at this place has this address.
    fn holder(&self, place: usize, address: Ipv4Addr) -> Option<Mac> {
        let mut here = self.machines.iter().filter(|(own_place, _)| *own_place == place);
        here.find(|(_, machine)| machine.progress().address == Some(address)).map(|(_, machine)| machine.mac())
    }

    /// False: it is over.
    fn obey(&mut self) -> Result<bool> {
        let woken = self.woken.read(&mut [0; 64]).context("cannot read from a pipe")?;
        let now = self.start.elapsed();
        for order in self.inbox.try_iter() {
            let Order::PowerCycle(index) = order;
            if let Some((_, machine)) = self.machines.get_mut(index) {
                machine.switch_on_again(now);
            }
        }
        Ok(woken > 0)
    }
}

/// Waits for the first of some sources to be readable, and says which are.
fn poll<'a>(sources: impl Iterator<Item = BorrowedFd<'a>>, timeout: Duration, readable: &mut [bool]) -> io::Result<()> {
    let wanted = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut sources: Vec<_> = sources.map(wanted).collect();
    // Rounded up, so that what is due then is due.
    let timeout = libc::c_int::try_from(timeout.as_millis() + 1).unwrap_or(libc::c_int::MAX);
    // SAFETY: a list of this length that lives through the call.
    let result = unsafe { libc::poll(sources.as_mut_ptr(), sources.len() as libc::nfds_t, timeout) };
    if result < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
        return Err(io::Error::last_os_error());
    }
    for (readable, source) in readable.iter_mut().zip(&sources) {
        *readable = result > 0 && source.revents != 0;
    }
    Ok(())
}

/// Members spread over some places in turn, each switched on at some moment within a time, the same in every run.
#[must_use]
pub fn members(count: usize, places: usize, within: Duration, boot: Boot, mac: impl Fn(usize) -> Mac) -> Vec<Member> {
    let mut dice = Dice::new(0);
    let mut member = |index: usize| {
        let on_after = dice.between(Duration::ZERO, within);
        Member { mac: mac(index), place: index % places, on_after, boot }
    };
    (0..count).map(&mut member).collect()
}

/// Locks; a panic elsewhere does not make numbers less true.
fn lock(progress: &Mutex<Vec<Progress>>) -> MutexGuard<'_, Vec<Progress>> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
