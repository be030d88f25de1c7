//! A mistake gets a sentence that says what to do, and an exit status of its own.

use super::Larder;
use super::support::{TestServer, nobody};

#[test]
fn a_wrong_command_line_ends_with_64() {
    let larder = Larder::at("127.0.0.1:1");
    let table: &[(&[&str], &str)] = &[
        (&["get"], "<KEY>"),
        (&["store", "k"], "VALUE"),
        (&["store", "k", "v", "--file", "f"], "cannot be used with"),
        (&["store", "k", "v", "--ttl", "5"], "a number and a unit"),
        (&["store", "k", "v", "--ttl", "0s"], "leave --ttl out"),
        (&["store", "k", "v", "--if-absent", "--if-present"], "cannot be used with"),
        (&["store", "k", "v", "--if-version", "0"], "0 is not in"),
        (&["store", "k", "--file", "/no/such/file"], "/no/such/file"),
        (&["touch", "k", "--extend-only", "--shorten-only"], "cannot be used with"),
        (&["get", "k", "--target", "ftp://x"], "give HOST:PORT"),
        (&["get", "k", "--target", "http://x:1", "--tls-server-name", "y"], "use https://"),
        (&["get", "k", "--tls-ca", "/no/such/ca"], "/no/such/ca"),
        (&["get", "k", "--tls-cert", "c"], "--tls-key"),
        (&["get", "k", "--token-file", "/no/such/token"], "/no/such/token"),
        (&["load", "/no/such/directory"], "/no/such/directory"),
        (&["load", ".", "--concurrency", "0"], "1..=1024"),
        (&["nonsense"], "unrecognized subcommand"),
    ];
    for (arguments, wanted) in table {
        let said = larder.run(arguments);
        assert_eq!(said.status, 64, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(wanted), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn a_token_that_can_be_none_is_refused_unseen() {
    let said = Larder::at("127.0.0.1:1").with("LARDER_TOKEN", "not a token").run(&["get", "k"]);
    assert_eq!(said.status, 64);
    assert!(said.err.contains("LARDER_TOKEN") && !said.err.contains("not a token"), "{}", said.err);
}

#[test]
fn a_server_that_is_not_there_ends_with_69() {
    let (_taken, address) = nobody();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("k"), "v").unwrap();
    let load = ["load", directory.path().to_str().unwrap()];
    for arguments in [&["get", "k"][..], &["health"], &load, &["dump"]] {
        let said = Larder::at(address).run(arguments);
        assert_eq!(said.status, 69, "{arguments:?}: {}", said.err);
        assert!(said.err.contains("larder dev") && said.err.contains(&address.to_string()), "{}", said.err);
    }
}

#[test]
fn a_server_that_is_silent_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let larder = Larder::at(listener.local_addr().unwrap());
    let said = larder.run(&["get", "k", "--timeout", "50ms"]);
    assert_eq!(said.status, 1);
    assert_eq!(said.err, "larder: the deadline passed; give it longer with --timeout\n");
}

#[test]
fn a_reader_that_has_gone_is_told_nothing() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    larder.ok(&["store", "k", "v"]);
    for arguments in [&["stats"][..], &["health"], &["incr", "n"], &["get", "k"], &["dump"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let said = larder.run_into(arguments, writer);
        assert_eq!(said.status, 1, "{arguments:?}: {}", said.err);
        assert!(!said.err.contains("larder:") && !said.err.contains("panicked"), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn output_that_cannot_be_written_is_said() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    for arguments in [&["stats"][..], &["store", "k", "v"], &["get", "k"], &["dump"]] {
        let said = larder.run_into(arguments, std::fs::File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(said.status, 1, "{arguments:?}: {}", said.err);
        assert!(said.err.contains("larder: cannot write to standard output: "), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn what_answers_but_is_no_larder_is_explained() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let said = Larder::at(address).run(&["get", "k"]);
    assert_eq!(said.status, 69, "{}", said.err);
    assert!(said.err.contains("not a Larder server"), "{}", said.err);
}

#[test]
fn a_missing_or_wrong_token_is_explained() {
    let server = TestServer::start();
    let said = Larder::of(&server).with("LARDER_TOKEN", "").run(&["get", "k"]);
    assert!(said.status == 1 && said.err.contains("--token"), "{}", said.err);
    let said = Larder::of(&server).with("LARDER_TOKEN", "nobodys").run(&["get", "k"]);
    assert!(said.status == 1 && said.err.contains("belongs to no account"), "{}", said.err);
}

#[test]
fn a_load_with_a_wrong_token_stops_at_once() {
    let server = TestServer::start();
    let lines: String = (0..500).map(|n| format!("{{\"key\":\"{n}\",\"value\":\"v\"}}\n")).collect();
    let said = Larder::of(&server).with("LARDER_TOKEN", "nobodys").run_with(&["load", "-"], lines.as_bytes());
    assert_eq!(said.status, 1);
    assert_eq!(said.err.matches("belongs to no account").count(), 1, "{}", said.err);
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let server = TestServer::start();
    let larder = Larder::of(&server).with("LARDER_TIMEOUT", "").with("LARDER_TLS_CA", "");
    assert_eq!(larder.ok(&["health"]), "SERVING\n");
}
