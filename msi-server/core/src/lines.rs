//! [`Lines`]: the lines of the I/O APIC, each with the devices that raise it.
//!
//! A line is level-triggered and may be shared. When it is raised the kernel masks it and signals the shard, which tells
//! the client of every device on it. Each looks at its device and acknowledges; when all have, the line is opened again.
//! Nobody is waited for longer than [`PATIENCE_US`]: then the pci-server switches the silent device's interrupt
//! off, and the others go on. A line that is raised more than [`STORM`] times in [`WINDOW_US`] stays closed for the rest of
//! that time; if one device has it alone, its interrupt is switched off.
//!
//! What it must not do: open a line while a device may still raise it that has not been looked at.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{Call, ClientId, Refusal, Rule};
use system::info::{LineInfo, MAX_LINES};

use crate::notes::{Note, NotedUser, Notes};
use crate::{Env, Shard};

/// Most devices on a line.
pub const MAX_USERS: usize = 16;
/// How long an acknowledgement is waited for, in microseconds.
pub const PATIENCE_US: u64 = 500_000;
/// Time in which a line may be raised [`STORM`] times, in microseconds.
pub const WINDOW_US: u64 = 100_000;
/// How often a line may be raised in [`WINDOW_US`].
pub const STORM: u32 = 5_000;

/// How a device on a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing is expected of it.
    Quiet,
    /// Its client has to look at it.
    Waits,
    /// Its interrupt is to be switched off, because nobody looked (0), or it came so often.
    Trouble(u32),
    /// Its shard knows, and will say when it is done.
    Told,
}

/// A device on a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) device: Sbdf,
    pub(crate) client: ClientId,
    /// pci-server shard that owns it.
    shard: u16,
    standing: Standing,
    /// Number of its note in the ledger.
    number: u16,
}

impl User {
    /// Is something of it waited for?
    pub(crate) fn waits(&self) -> bool {
        self.standing != Standing::Quiet
    }
}

/// A line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) info: LineInfo,
    pub(crate) users: Vec<User, MAX_USERS>,
    /// How often it was raised.
    pub(crate) raised: u64,
    /// The kernel has masked it, or may have.
    closed: bool,
    /// Acknowledgements are waited for until then.
    deadline: u64,
    /// When the window of counting began, and how often it was raised since.
    window: (u64, u32),
}

impl Line {
    /// When it is to be looked at next.
    fn due(&self) -> u64 {
        if !self.closed || self.users.is_empty() {
            return u64::MAX;
        }
        let waits = self
            .users
            .iter()
            .any(|user| user.standing == Standing::Waits);
        match waits {
            true => self.deadline,
            false if self.users.iter().any(User::waits) => u64::MAX,
            // It comes too often.
            false => self.window.0.saturating_add(WINDOW_US),
        }
    }
}

/// All lines of a shard.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) list: Vec<Line, MAX_LINES>,
}

impl Lines {
    /// Lines that nobody uses. The kernel lets each come once; it stays masked until somebody does.
    pub(crate) fn new(infos: &[LineInfo]) -> Self {
        let line = |info: &LineInfo| Line {
            info: *info,
            users: Vec::new(),
            raised: 0,
            closed: true,
            deadline: 0,
            window: (0, 0),
        };
        Self {
            list: infos.iter().map(line).take(MAX_LINES).collect(),
        }
    }

    fn position(&self, device: Sbdf) -> Option<(usize, usize)> {
        self.list.iter().enumerate().find_map(|(at, line)| {
            let user = line.users.iter().position(|user| user.device == device)?;
            Some((at, user))
        })
    }
}

impl<E: Env> Shard<E> {
    /// The `at`-th line was raised; the kernel has masked it.
    pub fn on_line(&mut self, at: usize) {
        let now = self.env.now_us();
        let Some(line) = self.lines.list.get_mut(at) else {
            return;
        };
        line.closed = true;
        line.raised = line.raised.wrapping_add(1);
        let (began, count) = line.window;
        line.window = match now.saturating_sub(began) {
            0..WINDOW_US => (began, count.saturating_add(1)),
            _ => (now, 1),
        };
        let stormy = line.window.1 > STORM;
        match line.users.as_mut_slice() {
            // It cannot be told apart whose it is when several share it: then it is only held back.
            [alone] if stormy => {
                alone.standing = Standing::Trouble(line.window.1);
                Notes(self.env.ledger()).mark_user(alone.number, Note::Trouble(line.window.1));
                self.env.tell_shard(alone.shard);
            }
            users => {
                line.deadline = now.saturating_add(PATIENCE_US);
                for user in users {
                    if user.standing == Standing::Quiet {
                        user.standing = Standing::Waits;
                        self.env.tell_client(user.client);
                    }
                }
            }
        }
        self.arm_lines();
    }

    /// The timer has run out: whoever has not acknowledged is silenced; lines that came too often are opened.
    pub fn on_timer(&mut self) {
        let now = self.env.now_us();
        for at in 0..self.lines.list.len() {
            let Some(line) = self.lines.list.get_mut(at).filter(|line| line.due() <= now) else {
                continue;
            };
            for user in &mut line.users {
                if user.standing == Standing::Waits {
                    user.standing = Standing::Trouble(0);
                    Notes(self.env.ledger()).mark_user(user.number, Note::Trouble(0));
                    self.env.tell_shard(user.shard);
                }
            }
            self.open(at);
        }
        self.arm_lines();
    }

    /// A device raises a line from now on.
    pub(crate) fn join(
        &mut self,
        call: Call,
        device: Sbdf,
        client: ClientId,
        number: u16,
    ) -> Result<(), Refusal> {
        self.check_buses(call, device)?;
        self.share(client)?;
        if self.lines.position(device).is_some() {
            return Err(Refusal::new(
                Rule::InterruptsEnabled,
                device.to_bits().into(),
            ));
        }
        let mut lines = self.lines.list.iter_mut().enumerate();
        let line = lines.find(|(_, line)| line.info.line == number);
        let (at, line) = line.ok_or(Refusal::new(Rule::NoInterruptRoute, number.into()))?;
        let full = Refusal::new(Rule::LineFull, number.into());
        if line.users.is_full() {
            return Err(full);
        }
        let shard = call.badge.index;
        let noted = NotedUser {
            device,
            client,
            shard,
            note: Note::On,
        };
        let number = Notes(self.env.ledger()).user(at, &noted).ok_or(full)?;
        let user = User {
            device,
            client,
            shard,
            standing: Standing::Quiet,
            number,
        };
        // There is room: it was looked for.
        let _ = line.users.push(user);
        self.open(at);
        self.arm_lines();
        Ok(())
    }

    /// A device does not raise its line any more.
    pub(crate) fn leave(&mut self, call: Call, device: Sbdf) -> Result<(), Refusal> {
        self.check_buses(call, device)?;
        let about = Refusal::new(Rule::NotOnLine, device.to_bits().into());
        let (at, user) = self.lines.position(device).ok_or(about)?;
        if let Some(line) = self.lines.list.get_mut(at) {
            let user = line.users.swap_remove(user);
            Notes(self.env.ledger()).clear_user(user.number);
        }
        self.open(at);
        self.arm_lines();
        Ok(())
    }

    /// A client has looked at its device.
    pub(crate) fn acknowledge(&mut self, call: Call, device: Sbdf) -> Result<(), Refusal> {
        let about = Refusal::new(Rule::NotOnLine, device.to_bits().into());
        let (at, user) = self.lines.position(device).ok_or(about)?;
        let line = self.lines.list.get_mut(at).ok_or(about)?;
        let user = line.users.get_mut(user).ok_or(about)?;
        if user.client != ClientId(call.badge.index) {
            return Err(about);
        }
        if user.standing == Standing::Waits {
            user.standing = Standing::Quiet;
            self.open(at);
            self.arm_lines();
        }
        Ok(())
    }

    /// A device of the calling shard that is to be silenced.
    pub(crate) fn trouble(&mut self, call: Call) -> Result<(Sbdf, u32), Refusal> {
        let users = self.lines.list.iter_mut().flat_map(|line| &mut line.users);
        for user in users.filter(|user| user.shard == call.badge.index) {
            if let Standing::Trouble(count) = user.standing {
                user.standing = Standing::Told;
                return Ok((user.device, count));
            }
        }
        Err(Rule::EndOfList.into())
    }

    /// A client is gone. Its devices that are left on lines do not obey: nobody will look at them, and their shard has been
    /// told. Their lines stay closed.
    pub(crate) fn bereave_lines(&mut self, client: ClientId) {
        let users = self.lines.list.iter_mut().flat_map(|line| &mut line.users);
        for user in users.filter(|user| user.client == client) {
            user.standing = Standing::Told;
            Notes(self.env.ledger()).mark_user(user.number, Note::Bereft);
        }
    }

    /// Is the device on any line?
    pub(crate) fn is_on_a_line(&self, device: Sbdf) -> bool {
        self.lines.position(device).is_some()
    }

    /// Puts a device back on the `at`-th line, as it is noted. `false` where there is no such line.
    pub(crate) fn rejoin(&mut self, at: usize, number: u16, noted: &NotedUser) -> bool {
        let user = User {
            device: noted.device,
            client: noted.client,
            shard: noted.shard,
            standing: match noted.note {
                Note::On => Standing::Quiet,
                // Its shard may have been told, and not have heard it.
                Note::Trouble(count) => Standing::Trouble(count),
                Note::Bereft => Standing::Told,
            },
            number,
        };
        let line = self.lines.list.get_mut(at);
        line.is_some_and(|line| line.users.push(user).is_ok())
    }

    /// The shard starts: every line may have been raised, and nobody have been told.
    pub(crate) fn raise_all(&mut self) {
        let now = self.env.now_us();
        for line in &mut self.lines.list {
            line.deadline = now.saturating_add(PATIENCE_US);
            for user in &mut line.users {
                match user.standing {
                    Standing::Quiet => {
                        user.standing = Standing::Waits;
                        self.env.tell_client(user.client);
                    }
                    Standing::Trouble(_) => self.env.tell_shard(user.shard),
                    Standing::Waits | Standing::Told => {}
                }
            }
        }
        self.arm_lines();
    }

    /// Lets a line come again, if nothing is waited for.
    fn open(&mut self, at: usize) {
        let now = self.env.now_us();
        let Some(line) = self.lines.list.get_mut(at) else {
            return;
        };
        let early = line.window.1 > STORM && now.saturating_sub(line.window.0) < WINDOW_US;
        if line.closed && !line.users.is_empty() && !line.users.iter().any(User::waits) && !early {
            line.closed = false;
            self.env.acknowledge(at);
        }
    }

    fn arm_lines(&mut self) {
        let due = self.lines.list.iter().map(Line::due).min();
        let due = due.unwrap_or(u64::MAX);
        if due < u64::MAX {
            let now = self.env.now_us();
            self.env.arm(due.saturating_sub(now).max(1));
        }
    }
}
