//! Tables of what was measured, for people and for programs.

use std::{fmt::Write as _, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    round::Sample,
    scenario::{Goal, Scenario},
    subject::Who,
};

/// Below this share of its core a subject was waiting, and what it did per request says less.
const BUSY: f64 = 0.95;

/// The way in which requests were sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    /// Requests were sent as fast as they were answered.
    Closed,
    /// Requests were sent at this rate, a share of what the slower of nginx and HAProxy can do.
    Part { share: f64, rate: f64 },
    /// None.
    Idle,
}

impl Mode {
    fn share(self) -> String {
        match self {
            Self::Closed => "full".to_owned(),
            Self::Part { share, .. } => format!("{:.0} %", 100.0 * share),
            Self::Idle => String::new(),
        }
    }
}

/// The figures of one subject in one scenario.
pub(super) struct Row {
    scenario: &'static str,
    title: &'static str,
    goal: Goal,
    part: Goal,
    who: Who,
    mode: Mode,
    samples: Vec<Sample>,
    memory: u64,
}

impl Row {
    pub(super) fn new(scenario: &Scenario, who: Who, samples: &[Sample], mode: Mode) -> Self {
        let memory = samples.last().map(|s| s.memory).unwrap_or_default();
        Self { samples: samples.to_vec(), mode, ..Self::idle(scenario, who, memory) }
    }

    pub(super) fn idle(scenario: &Scenario, who: Who, memory: u64) -> Self {
        let Scenario { name, title, goal, part, .. } = scenario;
        Self { scenario: name, title, goal: *goal, part: *part, who, mode: Mode::Idle, samples: vec![], memory }
    }

    fn cpu(&self) -> f64 {
        self.median(|s| s.cpu_us)
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(of))
    }

    /// Whether it was the subject that took the time, and not the client or the upstream.
    fn is_busy(&self) -> bool {
        self.mode != Mode::Closed || self.median(|s| s.busy) >= BUSY
    }

    fn goal(&self) -> Goal {
        if matches!(self.mode, Mode::Part { .. }) { self.part } else { self.goal }
    }

    /// Of another scenario or subject, measured in the same way.
    fn is_beside(&self, other: &Row) -> bool {
        match (self.mode, other.mode) {
            (Mode::Part { share: a, .. }, Mode::Part { share: b, .. }) => a.total_cmp(&b).is_eq(),
            (a, b) => a == b,
        }
    }

    /// No request went wrong, and what was asked for was sent.
    fn is_valid(&self) -> bool {
        let fast_enough = match self.mode {
            Mode::Part { rate, .. } => self.median(|s| s.requests_per_s) >= 0.98 * rate,
            Mode::Closed | Mode::Idle => true,
        };
        fast_enough && self.samples.iter().all(|s| s.errors == 0)
    }

    /// For the one who waits.
    pub(super) fn line(&self) -> String {
        let memory = self.memory as f64 / f64::from(1 << 20);
        if self.mode == Mode::Idle {
            return format!("{:<8} {memory:.1} MiB", self.who.name());
        }
        format!(
            "{:<8} {:<5} {:6.2} µs CPU ({:.2} user, {:.2} system)  {:7.0}/s  p50 {:.0} µs  p99 {:.0} µs  busy {:.0} %  {memory:.1} MiB{}",
            self.who.name(),
            self.mode.share(),
            self.cpu(),
            self.median(|s| s.user_us),
            self.median(|s| s.sys_us),
            self.median(|s| s.requests_per_s),
            self.median(|s| s.p50_us),
            self.median(|s| s.p99_us),
            100.0 * self.median(|s| s.busy),
            if self.is_valid() { "" } else { "  NOT VALID: errors, or slower than asked" },
        )
    }
}

/// The middle one; of an even number, the lower of the two.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// The rows, medians, for programs.
pub(super) fn json(rows: &[Row]) -> anyhow::Result<String> {
    let row = |row: &Row| {
        json!({
            "scenario": row.scenario,
            "subject": row.who.name(),
            "load": row.mode.share(),
            "cpu_us_per_request": row.cpu(),
            "user_us": row.median(|s| s.user_us),
            "sys_us": row.median(|s| s.sys_us),
            "requests_per_s": row.median(|s| s.requests_per_s),
            "p50_us": row.median(|s| s.p50_us),
            "p99_us": row.median(|s| s.p99_us),
            "pss_bytes": row.memory,
            "valid": row.is_valid(),
        })
    };
    Ok(serde_json::to_string_pretty(&rows.iter().map(row).collect::<Vec<Value>>())? + "\n")
}

/// The page's table, a line for each scenario.
pub(super) fn markdown(rows: &[Row]) -> String {
    let mut text = "| scenario | sluice | nginx | HAProxy | Envoy | ratio (min–max) | goal | |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for ours in rows.iter().filter(|row| row.who == Who::Sluice) {
        let is_same = |row: &&Row| row.scenario == ours.scenario && row.is_beside(ours);
        let of = |who: Who| rows.iter().filter(is_same).find(|row| row.who == who);
        let cell = |who: Who| of(who).map_or_else(|| "–".to_owned(), figure);
        let (ratio, goal, met) = verdict(rows, ours);
        let mode = match ours.mode {
            Mode::Closed => ", closed loop".to_owned(),
            Mode::Part { rate, .. } => format!(", {} load: {rate:.0}/s", ours.mode.share()),
            Mode::Idle => String::new(),
        };
        let [a, b, c, d] = Who::ALL.map(cell);
        let _ = writeln!(
            text,
            "| {} {}{mode} | {a} | {b} | {c} | {d} | {ratio} | {goal} | {met} |",
            ours.scenario, ours.title
        );
    }
    text
}

fn figure(row: &Row) -> String {
    let mark = if row.is_busy() { "" } else { "*" };
    match row.mode {
        Mode::Idle => format!("{:.1} MiB", row.memory as f64 / f64::from(1 << 20)),
        _ if row.is_valid() => format!("{:.1} µs{mark}", row.cpu()),
        _ => format!("({:.1} µs{mark})", row.cpu()),
    }
}

/// The ratio, the goal, and whether it is met. What was not busy in a closed loop proves nothing there: its part loads do.
fn verdict(rows: &[Row], ours: &Row) -> (String, String, &'static str) {
    let judge = |other: &Row, goal: String, most: f64| {
        let (ratio, text) = ratios(ours, other);
        let met = match (ours.is_valid() && other.is_valid(), ours.is_busy() && other.is_busy()) {
            (false, _) => "not valid",
            (true, false) => "not busy",
            (true, true) if ratio <= most => "met",
            (true, true) => "missed",
        };
        (text, goal, met)
    };
    let beside = rows.iter().filter(|row| row.is_beside(ours));
    match ours.goal() {
        Goal::Base => ("–".into(), "–".into(), ""),
        Goal::Memory(most) => {
            let met = if ours.memory <= most { "met" } else { "missed" };
            ("–".into(), format!("≤ {} MiB", most >> 20), met)
        }
        Goal::Of(most, whom) => {
            let others =
                beside.filter(|row| row.scenario == ours.scenario && whom.contains(&row.who) && row.is_valid());
            let Some(best) = others.min_by(|a, b| a.cpu().total_cmp(&b.cpu())) else {
                return ("–".into(), format!("≤ {most:.2}"), "");
            };
            judge(best, format!("≤ {most:.2} × {}", best.who.name()), most)
        }
        Goal::OfOwn(most, base) => {
            let Some(base) = beside.filter(|row| row.scenario == base).find(|row| row.who == ours.who) else {
                return ("–".into(), format!("≤ {most:.2} × {base}"), "");
            };
            judge(base, format!("≤ {most:.2} × {}", base.scenario), most)
        }
    }
}

/// The median of the rounds' ratios, the least and the most. Both sides of a round met the same machine; what changed
/// between rounds falls out.
fn ratios(ours: &Row, other: &Row) -> (f64, String) {
    let rounds = ours.samples.iter().zip(&other.samples).map(|(a, b)| a.cpu_us / b.cpu_us);
    let (least, most) = rounds.clone().fold((f64::MAX, 0.0), |(least, most), r| (r.min(least), r.max(most)));
    let ratio = median(rounds);
    (ratio, format!("{ratio:.2} ({least:.2}–{most:.2})"))
}

/// The marks between which the page has what is measured.
const BEGIN: &str = "<!-- measured: cargo xtask bench -->";
const END: &str = "<!-- /measured -->";

/// Replaces what is measured in the page; what people wrote around it stays.
pub(super) fn write_page(path: &Path, rows: &[Row], versions: &[String], command: &str) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{}: no line {BEGIN}", path.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{}: no line {END}", path.display()))?;
    let machine = machine();
    let measured = format!(
        "{}\n\n`cargo xtask {command}` on {machine}. {}.\n\nCPU time per request of the subject's processes; medians. Shares of load are of what the slower of nginx and HAProxy can do. \
         In brackets: not valid (errors, or slower than the rate). With a star: in a closed loop, its core was not busy.\n",
        markdown(rows).trim_end(),
        versions.join("; "),
    );
    let text = format!("{before}{BEGIN}\n{measured}{END}{after}");
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} × {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scenario::SCENARIOS;

    fn sample(cpu_us: f64) -> Sample {
        let (user_us, sys_us, requests_per_s, p50_us, p99_us) = (0.0, cpu_us, 1000.0, 1.0, 2.0);
        Sample { cpu_us, user_us, sys_us, requests_per_s, p50_us, p99_us, memory: 1 << 20, busy: 1.0, errors: 0 }
    }

    fn row(who: Who, cpu: [f64; 3]) -> Row {
        Row::new(&SCENARIOS[0], who, &cpu.map(sample), Mode::Closed)
    }

    /// Part loads are compared with the same part loads, and have goals of their own.
    #[test]
    fn part_loads_stand_beside_their_like() {
        let at = |share: f64, who: Who, cpu: f64| {
            Row::new(&SCENARIOS[0], who, &[sample(cpu)], Mode::Part { share, rate: 900.0 })
        };
        let rows = [
            at(0.3, Who::Sluice, 9.2),
            at(0.7, Who::Nginx, 20.0),
            at(0.3, Who::Nginx, 10.0),
            row(Who::Nginx, [1.0; 3]),
        ];
        let (ratio, goal, met) = verdict(&rows, &rows[0]);
        assert_eq!((ratio.as_str(), goal.as_str(), met), ("0.92 (0.92–0.92)", "≤ 0.90 × nginx", "missed"));
        let text = markdown(&rows);
        assert!(
            !text.contains("closed loop")
                && text.contains("S1 128 B, HTTP/1.1 keep-alive, 30 % load: 900/s | 9.2 µs | 10.0 µs |"),
            "{text}"
        );
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_to_the_best_peer() {
        let rows = [
            row(Who::Sluice, [9.0, 10.0, 30.0]),
            row(Who::Nginx, [20.0, 20.0, 20.0]),
            row(Who::HaProxy, [10.0, 12.5, 13.0]),
        ];
        let (ratio, goal, met) = verdict(&rows, &rows[0]);
        assert_eq!((ratio.as_str(), goal.as_str(), met), ("0.90 (0.80–2.31)", "≤ 0.95 × haproxy", "met"));
        let mut waits = row(Who::Nginx, [9.5, 9.5, 9.5]);
        waits.samples.iter_mut().for_each(|sample| sample.busy = 0.9);
        assert_eq!(verdict(&[waits], &rows[0]).2, "not busy");
        // Who answers wrongly is no measure, however fast.
        let mut wrong = row(Who::Nginx, [1.0, 1.0, 1.0]);
        wrong.samples[0].errors = 1;
        assert_eq!(verdict(&[wrong, row(Who::HaProxy, [20.0; 3])], &rows[0]).1, "≤ 0.95 × haproxy");
        let mut ours = row(Who::Sluice, [1.0, 1.0, 1.0]);
        ours.samples[0].errors = 1;
        assert_eq!(verdict(&rows, &ours).2, "not valid");
        assert_eq!(median([3.0, 1.0, 2.0, 9.0].into_iter()), 2.0);
    }
}
