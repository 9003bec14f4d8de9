//! While something takes long, a person wants to see that it goes on.

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::SaidOnce;
use crate::engine::{Event, Observer};
use crate::host::service;
use crate::show::{Style, duration, print, step_line};
use crate::step::Change;

/// Prints each step as it ends; on a terminal also a line that moves while a change is being made.
pub struct Terminal {
    style: Style,
    /// Where lines go.
    out: fn(&str),
    live: Option<Live>,
    waiting: SaidOnce,
}

impl Terminal {
    /// A printer in this style.
    pub fn new(style: Style) -> Self {
        Self { style, out: print, live: style.live.then(Live::start), waiting: SaidOnce::default() }
    }

    /// For the service: plain lines on the machine's console, or on standard output when it was started by hand.
    pub fn for_service() -> Self {
        let out = if service::is_unit() { service::console } else { print };
        Self { style: Style::default(), out, live: None, waiting: SaidOnce::default() }
    }

    fn line(&self, text: &str) {
        if let Some(live) = &self.live {
            live.show(None);
        }
        (self.out)(text);
    }
}

impl Observer for Terminal {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started(step) => {
                if let Some(live) = &self.live {
                    live.show(Some(format!("{:<11}  looking", step.name())));
                }
            }
            Event::Changing(step, change) => match (&self.live, change) {
                (Some(live), _) => live.show(Some(format!("{:<11}  {change}", step.name()))),
                (None, Change::Run(_) | Change::Unit(..)) => (self.out)(&format!("  {:<11}  {change} ...\n", step.name())),
                (None, _) => {}
            },
            Event::Changed(step, change, took, failure) => {
                let took = self.style.faint(&format!("({})", duration(*took)));
                match failure {
                    None => self.line(&format!("  {:<11}  {change}  {took}\n", step.name())),
                    Some(failure) => {
                        self.line(&format!("  {:<11}  {change}: failed  {took}\n{}\n", step.name(), indent(&failure.to_string())))
                    }
                }
            }
            Event::Waiting(_, record, pause) => {
                let text = format!("{:<11}  {}", record.name, record.text);
                match &self.live {
                    Some(live) => live.show(Some(format!("{text}; again in {}", duration(*pause)))),
                    None if self.waiting.is_new(&record.name, &record.text) => (self.out)(&format!("  {text}\n")),
                    None => {}
                }
            }
            Event::Ended(_, record) => {
                self.line(&step_line(self.style, record));
                if let Some(finding) = &record.finding {
                    self.line(&self.style.finding(finding));
                }
            }
            Event::LaneEnded(..) => {}
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

/// One line at the bottom that is drawn over again; a thread draws it, because the work may block.
struct Live {
    shared: Arc<(Mutex<Drawn>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Drawn {
    text: Option<(String, Instant)>,
    visible: bool,
    over: bool,
}

impl Drawn {
    fn erase(&mut self) {
        if std::mem::take(&mut self.visible) {
            print("\r\x1b[K");
        }
    }
}

impl Live {
    fn start() -> Self {
        let shared: Arc<(Mutex<Drawn>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let (lock, woken) = &*theirs;
            let Ok(mut drawn) = lock.lock() else { return };
            while !drawn.over {
                // What ends at once is not worth a line.
                if let Some((text, since)) = &drawn.text
                    && since.elapsed() > Duration::from_millis(300)
                {
                    let text: String = format!("  {text}").chars().take(100).collect();
                    let _ = write!(std::io::stdout(), "\r\x1b[K{text}  {}", duration(since.elapsed()));
                    let _ = std::io::stdout().flush();
                    drawn.visible = true;
                }
                match woken.wait_timeout(drawn, Duration::from_millis(200)) {
                    Ok((again, _)) => drawn = again,
                    Err(_) => return,
                }
            }
            drawn.erase();
        });
        Self { shared, thread: Some(thread) }
    }

    fn show(&self, text: Option<String>) {
        if let Ok(mut drawn) = self.shared.0.lock() {
            drawn.erase();
            drawn.text = text.map(|text| (text, Instant::now()));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Ok(mut drawn) = self.shared.0.lock() {
            drawn.over = true;
        }
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has ended or ends within one drawing.
            let _ = thread.join();
        }
    }
}
