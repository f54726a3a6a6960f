//! With a child that only waits: what a proxy does is tested where real proxies run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::*;
use crate::fleet::contract::{self, Bench};

/// Leaves when told to.
const POLITE: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.02; done\n";
/// Does not.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.02; done\n";

fn fleet(dir: &Path, script: &str) -> ProcessFleet {
    let program = dir.join("child");
    // Written under another name: a program that is open for writing can't be started.
    fs::write(dir.join("new"), script).unwrap();
    fs::set_permissions(dir.join("new"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(dir.join("new"), &program).unwrap();
    let settings = Settings {
        program,
        control_socket: dir.join("c.sock"),
        sockets_socket: dir.join("s.sock"),
        folder: dir.join("proxies"),
    };
    ProcessFleet::adopt(settings, Arc::new(|| {})).unwrap()
}

/// Ends whatever a test leaves behind.
struct Guard<'a>(&'a Path);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        kill_recorded(&self.0.join("proxies"));
    }
}

fn pid(bench: &Bench<ProcessFleet>, name: &str) -> u32 {
    bench.observe().proxies[name].pid.unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    contract::check(Bench::new(fleet(dir.path(), POLITE)));
    assert_eq!(Record::load_all(&dir.path().join("proxies")), []);
}

#[tokio::test]
async fn a_crashed_proxy_is_replaced_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let mut bench = Bench::new(fleet(dir.path(), POLITE));
    bench.plan.replicas = 2;
    bench.until("two proxies", |b| b.staying().len() == 2);
    let first = pid(&bench, "f-0");
    kill(first);
    bench.until("another process", |b| b.staying().len() == 2 && pid(b, "f-0") != first);
    assert_eq!(bench.staying(), ["f-0", "f-1"]);
    assert_eq!(bench.observe().replicas, 2);
}

#[tokio::test]
async fn one_that_does_not_leave_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let mut bench = Bench::new(fleet(dir.path(), STUBBORN));
    bench.plan.replicas = 1;
    bench.until("a proxy", |b| b.staying().len() == 1);
    // Its shell needs a moment to set the trap.
    tokio::time::sleep(Duration::from_millis(200)).await;
    bench.plan.replicas = 0;
    bench.plan.drain.timeout = crds::Duration::from_millis(0);
    bench.step();
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.step();
    assert!(bench.observe().proxies["f-0"].draining, "{:?}", bench.observe());
    bench.until("it is gone", |b| b.observe().proxies.is_empty());
}

#[tokio::test]
async fn one_that_can_not_start_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let mut bench = Bench::new(fleet(dir.path(), POLITE));
    fs::remove_file(dir.path().join("child")).unwrap();
    bench.plan.replicas = 1;
    bench.step();
    let problems = bench.observe().problems;
    assert!(problems[0].reason == "ProxyCrashes" && problems[0].message.contains("can't be started"), "{problems:?}");
    assert_eq!(bench.observe().replicas, 1);
}

#[tokio::test]
async fn crashes_in_a_row_are_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let mut bench = Bench::new(fleet(dir.path(), "#!/bin/sh\nexit 3\n"));
    bench.plan.replicas = 1;
    bench.until("a problem", |b| {
        b.observe().problems.iter().any(|p| p.message.contains("exited with code 3") && p.message.contains("log"))
    });
}

#[tokio::test]
async fn a_new_operator_adopts_processes_and_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut bench = Bench::new(fleet(dir.path(), POLITE));
    bench.plan.replicas = 2;
    bench.plan.ports = vec![port];
    bench.until("two proxies", |b| b.staying().len() == 2);
    assert_eq!(bench.observe().addresses, [format!("127.0.0.1:{port}")]);
    let pids = [pid(&bench, "f-0"), pid(&bench, "f-1")];
    // The stand-in does not hand sockets over; a thread does it in its place.
    let socket = dir.path().join("s.sock");
    let held = tokio::task::spawn_blocking(move || handover::request(&socket, None)).await.unwrap().unwrap();
    let path = dir.path().join("proxies/f-1/handover.sock");
    let server = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = server.accept().unwrap();
        handover::answer(stream, held.iter().map(|port| (port.port, port.sockets.as_slice()))).unwrap();
    });
    // One of the two ends while no operator is there, and a record lies about a process that is another's.
    drop(bench);
    kill(pids[0]);
    let mut record = Record::load_all(&dir.path().join("proxies")).remove(0);
    record.name = "f-7".into();
    record.process.as_mut().unwrap().pid = std::process::id();
    record.save(&dir.path().join("proxies")).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let mut bench = Bench::new(fleet(dir.path(), POLITE));
    assert_eq!(bench.staying(), ["f-1"]);
    assert_eq!((pid(&bench, "f-1"), bench.observe().replicas), (pids[1], 1));
    bench.plan.replicas = 2;
    bench.plan.ports = vec![port];
    bench.until("the other is replaced", |b| b.staying() == ["f-0", "f-1"]);
    assert_eq!(bench.observe().problems, [], "the port was taken over, not opened again");
    assert_eq!(pid(&bench, "f-1"), pids[1]);
    assert!(test_kill_process(Pid::from_raw(pids[1] as i32).unwrap()).is_ok());
}

#[tokio::test]
async fn what_a_proxy_kept_stays_for_a_restart_and_goes_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let mut bench = Bench::new(fleet(dir.path(), POLITE));
    bench.plan.replicas = 1;
    bench.until("a proxy", |b| b.staying().len() == 1);
    let kept = dir.path().join("proxies/f-0/last-good.bin");
    fs::write(&kept, "old").unwrap();
    let first = pid(&bench, "f-0");
    kill(first);
    bench.until("another process", |b| b.staying().len() == 1 && pid(b, "f-0") != first);
    assert!(kept.exists(), "a crash");
    bench.plan.replicas = 0;
    bench.until("it left", |b| b.observe().proxies.is_empty());
    assert!(!dir.path().join("proxies/f-0").exists());
    assert!(dir.path().join("proxies/f-0.log").exists());
    // One that ended while no operator was there leaves nothing to the next of its name either.
    bench.plan.replicas = 1;
    bench.until("a proxy", |b| b.staying().len() == 1);
    fs::write(&kept, "old").unwrap();
    let last = pid(&bench, "f-0");
    drop(bench);
    kill(last);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _bench = Bench::new(fleet(dir.path(), POLITE));
    assert!(!kept.exists());
}

#[tokio::test]
async fn a_process_that_was_being_started_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let mut bench = Bench::new(fleet(dir.path(), POLITE));
    bench.plan.replicas = 2;
    bench.until("two proxies", |b| b.staying().len() == 2);
    let (first, second) = (pid(&bench, "f-0"), pid(&bench, "f-1"));
    // As if the operator had been killed in the midst of both starts, and one of the two did not come to run.
    drop(bench);
    let folder = dir.path().join("proxies");
    for mut record in Record::load_all(&folder) {
        record.process = None;
        record.save(&folder).unwrap();
    }
    kill(second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let bench = Bench::new(fleet(dir.path(), POLITE));
    assert_eq!((bench.staying(), pid(&bench, "f-0")), (vec!["f-0".to_owned()], first));
    let records = Record::load_all(&folder);
    assert!(records.len() == 1 && records[0].process.is_some_and(|p| p.pid == first), "{records:?}");
}

#[tokio::test]
async fn nothing_is_started_that_can_not_be_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let _guard = Guard(dir.path());
    let started = dir.path().join("started");
    let mut bench = Bench::new(fleet(dir.path(), &format!("#!/bin/sh\n: > {}\n", started.display())));
    fs::create_dir_all(dir.path().join("proxies/f-0.json/x")).unwrap();
    bench.plan.replicas = 1;
    bench.step();
    let problems = bench.observe().problems;
    assert!(problems[0].message.contains("its record"), "{problems:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!started.exists());
}
