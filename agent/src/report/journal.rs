//! The journal keeps fields: `journalctl GPUK_STEP=join` shows one step's story over all boots.

use std::fmt::Write as _;
use std::sync::mpsc::{SyncSender, sync_channel};

use systemd_journal_logger::JournalLog;
use tracing::field::{Field, Visit};
use tracing::{Event as LogEvent, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::SaidOnce;
use crate::engine::{Event, Observer};

/// Lines that wait for journald; when it stalls, further ones are dropped rather than stopping the agent.
const QUEUE: usize = 256;

/// Sends every tracing event to journald, from a thread of its own: a stalled journald blocks the sender.
struct JournalLayer {
    queue: SyncSender<Line>,
}

struct Line {
    level: Level,
    message: String,
    fields: Vec<(String, String)>,
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &LogEvent<'_>, _context: Context<'_, S>) {
        let mut line = Line { level: *event.metadata().level(), message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        // Full or gone: the line is lost, the agent goes on.
        let _ = self.queue.try_send(line);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            // The prefix keeps ours apart from journald's own fields.
            name => self.fields.push((format!("GPUK_{}", name.to_uppercase()), value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

/// Sends log events to journald when it is there, and otherwise to standard error.
pub fn install() {
    let own = tracing_subscriber::filter::filter_fn(|metadata| {
        metadata.target().starts_with("gpuk_agent") && *metadata.level() <= Level::INFO
    });
    let registry = tracing_subscriber::registry();
    // An error only says that a subscriber is installed already.
    let _ = match JournalLog::new() {
        Ok(journal) => {
            let journal = journal.with_syslog_identifier("gpuk-agent".to_owned());
            let (queue, lines) = sync_channel::<Line>(QUEUE);
            std::thread::spawn(move || {
                for line in lines {
                    send(&journal, &line);
                }
            });
            registry.with(JournalLayer { queue }.with_filter(own)).try_init()
        }
        Err(_) => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(own)).try_init(),
    };
}

/// Sends one line to journald and waits until it is there, or says it on standard error: for a verb that ends at once.
pub fn note(message: &str) {
    let line = Line { level: Level::INFO, message: message.to_owned(), fields: Vec::new() };
    match JournalLog::new() {
        Ok(journal) => send(&journal.with_syslog_identifier("gpuk-agent".to_owned()), &line),
        Err(_) => crate::show::complain(message),
    }
}

fn send(journal: &JournalLog, line: &Line) {
    // systemd-journal-logger writes log's Info as "notice" (5) and Debug as "informational" (6).
    let level = match line.level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        _ => log::Level::Debug,
    };
    let fields: Vec<(&str, &str)> = line.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut record = log::Record::builder();
    record.level(level).target("gpuk_agent").key_values(&fields);
    // An error means that journald went away: there is nobody to tell.
    let _ = journal.journal_send(&record.args(format_args!("{}", line.message)).build());
}

/// Tells the journal what the engine does.
#[derive(Default)]
pub struct Journal {
    waiting: SaidOnce,
}

impl Observer for Journal {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started(_) | Event::Changing(..) | Event::LaneEnded(..) => {}
            Event::Changed(step, change, took, failure) => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or_default();
                match failure {
                    None => tracing::info!(step = step.name(), took_ms, "{}: {change}", step.name()),
                    Some(failure) => tracing::warn!(step = step.name(), took_ms, "{}: {change}: {failure}", step.name()),
                }
            }
            Event::Waiting(step, record, _) => {
                if !self.waiting.is_new(step.name(), &record.text) {
                    return;
                }
                tracing::info!(step = step.name(), verdict = record.verdict.word(), "{}: {}", step.name(), record.text)
            }
            Event::Ended(step, record) => match &record.finding {
                None => tracing::info!(
                    step = step.name(),
                    verdict = record.verdict.word(),
                    took_ms = record.took,
                    "{}: {}: {}",
                    step.name(),
                    record.verdict.word(),
                    record.text
                ),
                Some(finding) => tracing::warn!(
                    step = step.name(),
                    verdict = record.verdict.word(),
                    code = finding.code.as_str(),
                    remedy = finding.remedy.as_str(),
                    "{}: {}: {}. Remedy: {}",
                    step.name(),
                    finding.what,
                    finding.why,
                    finding.remedy
                ),
            },
        }
    }
}
