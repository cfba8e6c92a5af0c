//! Each line parses and says what was put into it; what cannot be written is counted.

use super::*;
use proptest::prelude::*;
use std::{fs, path::Path, time::Duration};

fn line<'a>(path: &'a str, request_id: Option<&'a [u8]>) -> Line<'a> {
    Line {
        client: Some("192.0.2.1".parse().unwrap()),
        listener: "web",
        cluster: Some("app"),
        backend: None,
        method: "GET",
        path,
        status: Some(200),
        bytes_received: 0,
        bytes_sent: 128,
        total_us: 1500,
        reply_us: Some(1400),
        connect_us: None,
        retries: 0,
        ended: Ended::Complete,
        error: None,
        request_id,
        trace_id: None,
    }
}

fn written(line: &Line<'_>) -> String {
    let mut text = Vec::new();
    line.write(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_176_000_042), &mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn a_line_is_what_the_documents_show() {
    assert_eq!(
        written(&line("/a?b=\"\u{1b}[31m\u{9b}\u{202e}", Some(b"x\xff"))),
        concat!(
            r#"{"time":"2026-11-20T12:00:00.042Z","client":"192.0.2.1","listener":"web","#,
            r#""cluster":"app","backend":null,"method":"GET","#,
            r#""path":"/a?b=\"\u001b[31m\u009b\u202e","status":200,"bytes_received":0,"#,
            r#""bytes_sent":128,"total_us":1500,"reply_us":1400,"connect_us":null,"retries":0,"#,
            r#""ended":"complete","error":null,"request_id":"x"#,
            "\u{fffd}",
            r#"","trace_id":null}"#,
            "\n"
        )
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_line_parses_and_gives_the_same_bytes_back(
        path in any::<String>(),
        id in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let text = written(&line(&path, Some(&id)));
        prop_assert_eq!(text.matches('\n').count(), 1);
        prop_assert!(text.strip_suffix('\n').unwrap().chars().all(|c| !c.is_control()));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value["path"].as_str().unwrap(), &path);
        let expected = String::from_utf8_lossy(&id);
        prop_assert_eq!(value["request_id"].as_str().unwrap(), expected.as_ref());
    }

    #[test]
    fn what_is_printable_stands_as_it_is(path in "[a-zA-Z0-9/?=&é漢😀]*") {
        prop_assert!(written(&line(&path, None)).contains(&path));
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn pages_are_written_whole_and_a_file_moved_away_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, mut writer) = open(&Place::File(path.clone())).unwrap();
    let page = Page::new(log);
    (0..3).for_each(|_| page.add(SystemTime::now(), &line("/", None)));
    page.flush();
    writer.sink.write(&writer.queue.recv().unwrap().text).unwrap();
    assert_eq!(lines(&path), 3);

    fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    writer.sink.look_now();
    writer.sink.write(b"{}\n").unwrap();
    assert_eq!((lines(&path), lines(&folder.path().join("access.log.1"))), (1, 3));
    page.add(SystemTime::now(), &line("/", None));
    drop(page);
    writer.run();
    assert_eq!(lines(&path), 2, "the writer ends after the last handle, when all is written");
}

#[test]
fn what_the_writer_cannot_take_is_dropped_and_counted_by_the_line() {
    let (log, writer) = open(&Place::File("/dev/full".into())).unwrap();
    let (dropped, page) = (log.dropped(), Page::new(log));
    for _ in 0..QUEUE + 2 {
        (0..2).for_each(|_| page.add(SystemTime::now(), &line("/", None)));
        page.flush();
    }
    assert_eq!(dropped.get(), 4, "the queue is full");
    drop(page);
    writer.run();
    assert_eq!(dropped.get(), 4 + 2 * QUEUE as u64, "the disk is full");
}

#[test]
fn a_page_that_is_full_goes_before_its_time() {
    let (log, writer) = open(&Place::File("/dev/null".into())).unwrap();
    let page = Page::new(log);
    let long = "/".repeat(CHUNK);
    page.add(SystemTime::now(), &line(&long, None));
    assert_eq!(writer.queue.try_recv().unwrap().lines, 1);
}
