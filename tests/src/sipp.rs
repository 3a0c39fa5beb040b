//! SIPp scenarios from short text: `tests/interop/sipp/*.txt`, a file for each method or extension. What all of them share
//! (Via, tags, CSeq, the dialog) is written here, once.
//!
//! ```text
//! + name: what it shows (a clause)      a scenario that goes well; `-` one that is refused
//! caller:                               u0 of the pair; `callee:` is u1, `callee 2:` when he is called twice
//! > INVITE sdp                          a request outside of a dialog, to the other user (`to=self`, `to=URI`)
//!   Require: 100rel                     a header more, or in the place of ours
//! <= 183 RSeq:([0-9]+)=rseq             a response that makes the dialog; a header must match, its group is kept; with
//!                                       `!RSeq:x` it must not
//! >> PRACK                              a request in the dialog
//!   RAck: [$rseq] 1 INVITE
//! < 200                                 a response
//! > ACK                                 of the last failure; `>> ACK` of a 2xx, `>> ACK failed` of another
//! ? BYE Reason:cause=16                 a request must come
//! ! 200 sdp                             the answer to the last request that came; `! INVITE 200` to the INVITE
//! ~ 200                                 a pause, milliseconds
//! ```

use std::fs;
use std::path::Path;

use crate::workspace::root;

/// Whoever is played by one SIPp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<Step>,
}

/// A scenario with one or two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The file's name: the method or extension.
    pub subject: String,
    /// Its name.
    pub name: String,
    /// It goes well.
    pub positive: bool,
    /// What the caller does.
    pub caller: Script,
    /// What the callee does; nobody, when empty.
    pub callee: Script,
    /// How often he is called.
    pub calls: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    kind: String,
    words: Vec<String>,
    extra: Vec<String>,
}

impl Script {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// The folder of the scenarios.
pub fn folder() -> std::path::PathBuf {
    root().join("tests/interop/sipp")
}

/// Every scenario, by subject and in the order of its file.
///
/// # Panics
/// Where a file does not say what a scenario is.
pub fn all() -> Vec<Scenario> {
    let files = fs::read_dir(folder()).expect("the folder").filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    files.iter().flat_map(|file| read(file)).collect()
}

fn read(file: &Path) -> Vec<Scenario> {
    let subject = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let text = fs::read_to_string(file).expect("the file");
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut at_callee = false;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix("+ ").or_else(|| line.strip_prefix("- ")) {
            let (name, _) = head.split_once(':').unwrap_or_else(|| panic!("{subject}: {line}"));
            scenarios.push(Scenario {
                subject: subject.clone(),
                name: name.trim().to_owned(),
                positive: line.starts_with('+'),
                caller: Script::default(),
                callee: Script::default(),
                calls: 1,
            });
            at_callee = false;
            continue;
        }
        let scenario = scenarios.last_mut().unwrap_or_else(|| panic!("{subject}: {line}"));
        let script = if at_callee { &mut scenario.callee } else { &mut scenario.caller };
        match line {
            "caller:" => at_callee = false,
            _ if line.starts_with("callee") => {
                at_callee = true;
                let times = line.trim_start_matches("callee").trim_end_matches(':').trim();
                scenario.calls = times.parse().unwrap_or(1);
            }
            _ if line.starts_with("  ") => {
                let step = script.steps.last_mut().unwrap_or_else(|| panic!("{subject}: {line}"));
                step.extra.push(line.trim().to_owned());
            }
            _ => {
                let mut words = line.split_whitespace().map(str::to_owned);
                let kind = words.next().expect("a word");
                assert!(["<", "<=", ">", ">>", "?", "!", "~"].contains(&&*kind), "{subject}: {line}");
                script.steps.push(Step { kind, words: words.collect(), extra: Vec::new() });
            }
        }
    }
    scenarios
}

/// What is known while the XML is written.
#[derive(Default)]
struct Writer {
    out: String,
    seq: u32,
    /// CSeq of the last INVITE.
    invite: u32,
    /// It called; else it was called.
    calls: bool,
    variables: Vec<String>,
    last_uri: String,
    invited: bool,
    /// Messages so far, and which of them the last INVITE was: SIPp counts branches so.
    count: usize,
    invite_at: usize,
}

/// The scenario as SIPp reads it.
pub fn xml(name: &str, script: &Script) -> String {
    let calls = script.steps.first().is_some_and(|step| step.kind.starts_with('>'));
    let mut writer = Writer { calls, ..Writer::default() };
    for step in &script.steps {
        writer.step(step);
    }
    writer.variables.sort();
    writer.variables.dedup();
    let all = writer.variables.join(",");
    let used = if all.is_empty() { String::new() } else { format!("<Reference variables=\"{all}\"/>\n") };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<scenario name=\"{name}\">\n{}{used}</scenario>\n",
        writer.out
    )
}

const SDP: &str = "v=0\no=- [pid] [call_number] IN IP4 [local_ip]\ns=-\nc=IN IP4 [local_ip]\nt=0 0\n\
                   m=audio [media_port] RTP/AVP 0\na=rtpmap:0 PCMU/8000\n";
const CONTACT: &str = "<sip:[field0]@[local_ip]:[local_port];transport=[transport]>";

fn body_of(words: &[String]) -> Option<(&'static str, String)> {
    let word = words.iter().find(|w| ["sdp", "hold", "text", "pidf"].contains(&w.as_str()))?;
    Some(match word.as_str() {
        "sdp" => ("application/sdp", SDP.to_owned()),
        "hold" => (
            "application/sdp",
            format!("{}a=sendonly\n", SDP.replace("[call_number] IN", "1[call_number] IN")),
        ),
        "text" => ("text/plain", "hello\n".to_owned()),
        _ => ("application/pidf+xml", "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/>\n".to_owned()),
    })
}

/// Headers, those of the step before ours of the same name.
fn headers(ours: &[(&str, String)], extra: &[String], body: Option<(&str, String)>) -> String {
    let name_of = |line: &str| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let said: Vec<String> = extra.iter().map(|line| name_of(line)).collect();
    let mut text = String::new();
    for (name, value) in ours {
        if !said.contains(&name.to_ascii_lowercase()) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    for line in extra.iter().filter(|line| !line.ends_with(':')) {
        // What begins with a bracket is SIPp's own line ([field2] is Authorization).
        text.push_str(line);
        text.push('\n');
    }
    let (kind, body) = body.unwrap_or_default();
    if !kind.is_empty() && !said.contains(&"content-type".to_owned()) {
        text.push_str(&format!("Content-Type: {kind}\n"));
    }
    format!("{text}Content-Length: [len]\n\n{body}")
}

impl Writer {
    fn step(&mut self, step: &Step) {
        match step.kind.as_str() {
            ">" => self.outside(step),
            ">>" => self.inside(step),
            "<" | "<=" => self.hear(step),
            "?" => self.await_request(step),
            "!" => self.answer(step),
            _ => self.put(&format!("<pause milliseconds=\"{}\"/>\n", step.words[0])),
        }
    }

    fn put(&mut self, message: &str) {
        self.out.push_str(message);
        self.count += 1;
    }

    fn send(&mut self, again: bool, text: &str) {
        let again = if again { " retrans=\"500\"" } else { "" };
        self.put(&format!("<send{again}><![CDATA[\n{text}\n]]></send>\n"));
    }

    fn number(&mut self, method: &str) -> String {
        match method {
            "ACK" => {}
            "CANCEL" => return format!("{} CANCEL", self.invite),
            _ => self.seq += 1,
        }
        if method == "INVITE" {
            (self.invite, self.invite_at) = (self.seq, self.count);
        }
        format!("{} {method}", if method == "ACK" { self.invite } else { self.seq })
    }

    fn outside(&mut self, step: &Step) {
        let method = step.words[0].as_str();
        let to = step.words.iter().find_map(|w| w.strip_prefix("to="));
        let uri = match to {
            Some("self") => "sip:[field0]@example.com".to_owned(),
            Some(uri) => uri.to_owned(),
            None if matches!(method, "ACK" | "CANCEL") => self.last_uri.clone(),
            None => "sip:[field1]@example.com".to_owned(),
        };
        self.last_uri.clone_from(&uri);
        let hop = matches!(method, "ACK" | "CANCEL");
        let via = "SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]".to_owned();
        let aor = if method == "REGISTER" { "sip:[field0]@example.com" } else { uri.as_str() };
        let mut ours = vec![("Via", via)];
        ours.push(("Max-Forwards", "70".to_owned()));
        ours.push(("From", "<sip:[field0]@example.com>;tag=[pid]a[call_number]".to_owned()));
        ours.push(("To", format!("<{aor}>")));
        ours.push(("Call-ID", "[call_id]".to_owned()));
        ours.push(("CSeq", self.number(method)));
        if !hop {
            ours.push(("Contact", CONTACT.to_owned()));
        }
        let mut extra = step.extra.clone();
        if method == "ACK" {
            // RFC 3261 §17.1.1.3: the branch and the To of what it is for.
            ours.retain(|(name, _)| !["Via", "To"].contains(name));
            extra.splice(0..0, ["[last_Via:]".to_owned(), "[last_To:]".to_owned()]);
        }
        if method == "CANCEL" {
            // RFC 3261 §9.1: the branch of the INVITE.
            let back = self.count - self.invite_at;
            ours[0].1 = format!("SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch-{back}]");
        }
        let text = headers(&ours, &extra, body_of(&step.words));
        self.send(method != "ACK", &format!("{method} {uri} SIP/2.0\n{text}"));
    }

    fn inside(&mut self, step: &Step) {
        let method = step.words[0].as_str();
        let (from, to) = match self.calls {
            true => ("<sip:[field0]@example.com>;tag=[pid]a[call_number]".to_owned(), "[$far]".to_owned()),
            false => ("[$ito];tag=[pid]s[call_number]".to_owned(), "[$ifrom]".to_owned()),
        };
        let failed = step.words.iter().any(|w| w == "failed");
        let mut extra = step.extra.clone();
        if failed {
            extra.insert(0, "[last_Via:]".to_owned());
        }
        let mut ours = vec![
            ("Via", "SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]".to_owned()),
            ("Max-Forwards", "70".to_owned()),
            ("From", from),
            ("To", to),
            ("Call-ID", "[call_id]".to_owned()),
            ("CSeq", self.number(method)),
            ("Contact", CONTACT.to_owned()),
        ];
        ours.drain(..usize::from(failed));
        let text = headers(&ours, &extra, body_of(&step.words));
        self.send(method != "ACK", &format!("{method} [next_url] SIP/2.0\n{text}"));
    }

    /// `Header:pattern` or `Header:(pattern)=variable`, each of a received message.
    fn checks(&mut self, words: &[String]) -> String {
        let mut text = String::new();
        for word in words {
            let Some((name, pattern)) = word.split_once(':') else { continue };
            let (name, check) = match name.strip_prefix('!') {
                Some(name) => (name, "check_it_inverse"),
                None => (name, "check_it"),
            };
            let (pattern, variable) = match pattern.rsplit_once(")=") {
                Some((pattern, variable)) => (format!("{pattern})"), variable.to_owned()),
                None => (pattern.to_owned(), format!("seen{}", self.variables.len())),
            };
            let pattern = pattern.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            let place = match name {
                "body" | "msg" => format!("search_in=\"{name}\""),
                _ => format!("search_in=\"hdr\" header=\"{name}:\""),
            };
            let kept = if pattern.starts_with('(') || pattern.contains("(") {
                let whole = format!("whole{}", self.variables.len());
                self.variables.push(whole.clone());
                format!("{whole},{variable}")
            } else {
                variable.clone()
            };
            self.variables.push(variable);
            text.push_str(&format!(
                "<ereg regexp=\"{pattern}\" {place} {check}=\"true\" assign_to=\"{kept}\"/>\n"
            ));
        }
        text
    }

    fn keep(&mut self, header: &str, variable: &str) -> String {
        self.variables.push(variable.to_owned());
        format!(
            "<ereg regexp=\".*\" search_in=\"hdr\" header=\"{header}:\" check_it=\"true\" assign_to=\"{variable}\"/>\n"
        )
    }

    fn hear(&mut self, step: &Step) {
        let code = step.words[0].as_str();
        let opens = step.kind == "<=";
        for provisional in ["100", "180", "183"].iter().filter(|p| **p != code) {
            self.put(&format!("<recv response=\"{provisional}\" optional=\"true\"/>\n"));
        }
        let mut actions = self.checks(&step.words[1..]);
        if opens {
            actions.push_str(&self.keep("To", "far"));
        }
        let rrs = if opens { " rrs=\"true\"" } else { "" };
        let auth = if matches!(code, "401" | "407") { " auth=\"true\"" } else { "" };
        self.put(&format!("<recv response=\"{code}\"{rrs}{auth}>\n"));
        self.action(&actions);
        self.out.push_str("</recv>\n");
    }

    fn action(&mut self, actions: &str) {
        if !actions.is_empty() {
            self.out.push_str(&format!("<action>\n{actions}</action>\n"));
        }
    }

    fn await_request(&mut self, step: &Step) {
        let method = step.words[0].as_str();
        let mut actions = self.checks(&step.words[1..]);
        let first = method == "INVITE" && !self.invited && !self.calls;
        if method == "INVITE" {
            for (header, variable) in [("Via", "ivia"), ("CSeq", "icseq")] {
                actions.push_str(&self.keep(header, variable));
            }
        }
        if first {
            self.invited = true;
            for (header, variable) in [("From", "ifrom"), ("To", "ito")] {
                actions.push_str(&self.keep(header, variable));
            }
        }
        let rrs = if first { " rrs=\"true\"" } else { "" };
        self.put(&format!("<recv request=\"{method}\"{rrs}>\n"));
        self.action(&actions);
        self.out.push_str("</recv>\n");
    }

    fn answer(&mut self, step: &Step) {
        let to_invite = step.words[0] == "INVITE";
        let code = if to_invite { &step.words[1] } else { &step.words[0] };
        let mut lines: Vec<String> = match to_invite {
            true => vec![
                "Via: [$ivia]".to_owned(),
                "From: [$ifrom]".to_owned(),
                "To: [$ito];tag=[pid]s[call_number]".to_owned(),
                "Call-ID: [call_id]".to_owned(),
                "CSeq: [$icseq]".to_owned(),
            ],
            false => ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("[last_{name}:]")).to_vec(),
        };
        if !to_invite && step.words.iter().any(|w| w == "tag") {
            lines[2].push_str(";tag=[pid]s[call_number]");
        }
        lines.extend(step.extra.iter().cloned());
        let ours = [
            ("Contact", CONTACT.replace("[field0]", "callee")),
            (
                "Allow",
                "INVITE, ACK, BYE, CANCEL, PRACK, UPDATE, REFER, NOTIFY, INFO, MESSAGE, OPTIONS".to_owned(),
            ),
        ];
        let text = headers(&ours, &lines, body_of(&step.words));
        let again = to_invite && code.starts_with('2');
        self.send(again, &format!("SIP/2.0 {code} x\n{text}"));
    }
}

/// How many scenarios each subject has, good ones and bad ones, as the README says it.
pub fn table() -> String {
    let scenarios = all();
    let mut subjects: Vec<&str> = scenarios.iter().map(|s| s.subject.as_str()).collect();
    subjects.dedup();
    let count = |subject: Option<&str>, positive: bool| {
        let of = scenarios.iter().filter(|s| subject.is_none_or(|name| s.subject == name));
        of.filter(|s| s.positive == positive).count()
    };
    let mut text = "| method or extension | goes well | is refused |\n| --- | --- | --- |\n".to_owned();
    for subject in subjects {
        let (good, bad) = (count(Some(subject), true), count(Some(subject), false));
        text.push_str(&format!("| {subject} | {good} | {bad} |\n"));
    }
    text.push_str(&format!("| all | {} | {} |\n", count(None, true), count(None, false)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_counts_the_scenarios_that_are_there() {
        let readme = fs::read_to_string(root().join("tests/interop/README.md")).expect("the README");
        assert!(readme.contains(&table()), "the table should be\n{}", table());
    }

    #[test]
    fn every_method_and_extension_has_three_scenarios_good_and_bad() {
        let scenarios = all();
        for scenario in &scenarios {
            let of = || scenarios.iter().filter(|s| s.subject == scenario.subject);
            let good = of().filter(|s| s.positive).count();
            assert!(of().count() >= 3 && good > 0 && good < of().count(), "{}", scenario.subject);
            let same = of().filter(|s| s.name == scenario.name).count();
            assert_eq!(same, 1, "{}/{}", scenario.subject, scenario.name);
            assert!(!scenario.caller.is_empty(), "{}/{}", scenario.subject, scenario.name);
        }
    }

    #[test]
    fn a_cancel_has_the_branch_of_its_invite() {
        let steps = |text: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("x.txt");
            fs::write(&file, text).expect("a file");
            read(&file).remove(0).caller
        };
        let text = xml("x", &steps("+ a: b\ncaller:\n> INVITE sdp\n< 180\n> CANCEL\n< 200\n< 487\n> ACK\n"));
        // INVITE, two optional ones, 180: the fourth before it.
        assert!(text.contains("CANCEL sip:[field1]@example.com SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch-4]"), "{text}");
        assert!(text.contains("CSeq: 1 ACK"), "{text}");
    }
}
