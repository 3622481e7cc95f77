//! Ends a process at a chosen call: its calls of one kind are counted over all of its threads, and before the one whose turn
//! it is the process is killed, so that this call is not made.
//!
//! `strace -e inject=…:signal=KILL:when=N` counts in each thread by itself (6.1 does), so the hundredth call of a process whose
//! threads have made three each can't be chosen by it, and most would never be.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use serde_json::{Value, json};

use crate::error::{CutError, file_error};

/// What the process that watches says first.
const ATTACHED: &str = "attached";

/// Kinds of calls that change what a disk holds, or make it durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Call {
    /// fdatasync
    Fdatasync,
    /// fsync
    Fsync,
    /// rename, renameat, renameat2
    Rename,
    /// unlink, unlinkat, rmdir
    Unlink,
    /// fallocate: reserving blocks and punching holes
    Fallocate,
    /// ftruncate, truncate
    Truncate,
    /// mkdir, mkdirat
    Mkdir,
    /// write, writev, pwrite64, pwritev, of files and of sockets
    Write,
}

impl Call {
    /// Its name, as the command line has it.
    pub(crate) fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn numbers(self) -> &'static [libc::c_long] {
        match self {
            Self::Fdatasync => &[libc::SYS_fdatasync],
            Self::Fsync => &[libc::SYS_fsync],
            Self::Rename => &[
                #[cfg(target_arch = "x86_64")]
                libc::SYS_rename,
                libc::SYS_renameat,
                libc::SYS_renameat2,
            ],
            Self::Unlink => &[
                #[cfg(target_arch = "x86_64")]
                libc::SYS_unlink,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_rmdir,
                libc::SYS_unlinkat,
            ],
            Self::Fallocate => &[libc::SYS_fallocate],
            Self::Truncate => &[libc::SYS_ftruncate, libc::SYS_truncate],
            Self::Mkdir => &[
                #[cfg(target_arch = "x86_64")]
                libc::SYS_mkdir,
                libc::SYS_mkdirat,
            ],
            Self::Write => &[libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_pwritev],
        }
    }
}

/// What became of a process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traced {
    /// Its calls of the kind that were begun, the last one included.
    pub(crate) calls: u64,
    /// Whether it was killed at its call; else it has ended otherwise.
    pub(crate) was_killed: bool,
}

/// Watches a process until that has ended. It is a process, too: threads of the one that waits for its child as a parent would
/// take the news from each other.
#[derive(Debug)]
pub(crate) struct Tracer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Tracer {
    /// Kills a process before the `nth` call of a kind that it makes from now on; 1 is the first.
    ///
    /// # Errors
    /// When the kernel does not let it be traced.
    pub(crate) fn attach(process: u32, call: Call, nth: u64) -> Result<Self, CutError> {
        let this = std::env::current_exe().map_err(file_error(Path::new("/proc/self/exe")))?;
        let mut command = Command::new(this);
        command.arg("trace").arg(process.to_string()).arg(call.name()).arg(nth.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
        let said = child.stdout.take().map(BufReader::new).ok_or_else(|| failed("its output is gone"))?;
        let mut tracer = Self { child, said };
        let mut line = String::new();
        tracer.said.read_line(&mut line).map_err(|error| failed(&error))?;
        if line.trim() == ATTACHED { Ok(tracer) } else { Err(failed("the process cannot be traced")) }
    }

    /// Waits for the process's end.
    ///
    /// # Errors
    /// When it could not be traced to its end.
    pub(crate) fn join(mut self) -> Result<Traced, CutError> {
        let told: Result<Value, _> = serde_json::from_reader(&mut self.said);
        self.child.wait().map_err(|error| failed(&error))?;
        let told = told.map_err(|error| failed(&error))?;
        Ok(Traced {
            calls: told["calls"].as_u64().unwrap_or_default(),
            was_killed: told["was_killed"].as_bool().unwrap_or_default(),
        })
    }
}

/// A process to watch, told to the process that does.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Trace {
    process: i32,
    #[arg(value_enum)]
    call: Call,
    nth: u64,
}

impl Trace {
    /// Watches it to its end; says first that it has begun to.
    ///
    /// # Errors
    /// When the kernel does not let it be traced.
    pub(crate) fn run(&self) -> Result<Value, CutError> {
        let traced = watch(Pid::from_raw(self.process), self.call, self.nth, || println!("{ATTACHED}"));
        let Traced { calls, was_killed } = traced.map_err(failed)?;
        Ok(json!({ "calls": calls, "was_killed": was_killed }))
    }
}

fn failed(problem: impl ToString) -> CutError {
    CutError::Command { command: "ptrace".to_owned(), problem: problem.to_string() }
}

/// The thread that calls this is the only one that can go on with what it has stopped, and must be the only one that waits for
/// the process.
fn watch(process: Pid, call: Call, nth: u64, attached: impl FnOnce()) -> Result<Traced, Errno> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(process, options)?;
    ptrace::interrupt(process)?;
    attached();
    trace(process, call, nth)
}

fn trace(process: Pid, call: Call, nth: u64) -> Result<Traced, Errno> {
    // Of this thread's tracees only: other children of the program are waited for by others.
    let all_of_mine = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let mut traced = Traced::default();
    loop {
        let stopped = match waitpid(Pid::from_raw(-1), Some(all_of_mine)) {
            Err(Errno::ECHILD) => return Ok(traced),
            Err(Errno::EINTR) => continue,
            stopped => stopped?,
        };
        let (thread, signal) = match stopped {
            WaitStatus::PtraceSyscall(thread) => {
                traced.calls += u64::from(!traced.was_killed && enters(thread, call));
                if traced.calls == nth && !traced.was_killed {
                    kill(process, Signal::SIGKILL)?;
                    traced.was_killed = true;
                    continue;
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        match ptrace::syscall(thread, signal) {
            // It was killed while it was stopped.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a thread is about to make such a call. One that is gone is not.
fn enters(thread: Pid, call: Call) -> bool {
    const ENTRY: u8 = libc::PTRACE_SYSCALL_INFO_ENTRY;
    let Ok(registers) = ptrace::getregs(thread) else { return false };
    #[cfg(target_arch = "x86_64")]
    let number = registers.orig_rax;
    #[cfg(target_arch = "aarch64")]
    let number = registers.regs[8];
    let is_of_kind = call.numbers().iter().any(|of_kind| u64::try_from(*of_kind) == Ok(number));
    is_of_kind && ptrace::syscall_info(thread).is_ok_and(|info| info.op == ENTRY)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Makes three files, each by another process of one shell, and removes them; what is left when the shell is killed at its
    /// `nth` removal.
    fn left(nth: u64) -> (usize, Traced) {
        let directory = std::env::temp_dir().join(format!("orlop-tracer-{}-{nth}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(directory.join(name), "").unwrap();
        }
        let mut child = Command::new("sh")
            .args(["-c", "read go; exec rm a b c"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (process, input) = (Pid::from_raw(child.id().cast_signed()), child.stdin.take());
        let traced = watch(process, Call::Unlink, nth, || drop(input)).unwrap();
        let _ = child.wait();
        let count = fs::read_dir(&directory).unwrap().count();
        fs::remove_dir_all(&directory).unwrap();
        (count, traced)
    }

    #[test]
    fn a_process_is_killed_before_the_chosen_call_and_lives_when_there_is_none() {
        assert_eq!(left(1), (3, Traced { calls: 1, was_killed: true }));
        assert_eq!(left(3), (1, Traced { calls: 3, was_killed: true }));
        assert_eq!(left(4), (0, Traced { calls: 3, was_killed: false }));
    }
}
