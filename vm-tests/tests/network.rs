//! The network of machines on a cloud is apart from this machine's.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use vm_tests::command::run;
use vm_tests::scene::SHORT;
use vm_tests::{Network, Packages};

#[test]
fn an_address_inside_is_not_outside_and_a_port_outside_is_inside() -> Result<()> {
    Packages::look().install()?;
    let outside = TcpListener::bind("127.0.0.1:0")?;
    let port = outside.local_addr()?.port();
    let network = Network::apart(&["192.0.2.77"], &[port])?;
    let _listener = network.listen("192.0.2.77:80")?;
    ensure!(TcpListener::bind("192.0.2.77:80").is_err(), "the address is this machine's too");
    let [program, namespace] = network.prefix();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; head -c 3 <&3");
    let mut inside = Command::new(program);
    inside.args([namespace.as_str(), "bash", "-c", &script]);
    let asked = thread::spawn(move || run(&mut inside, SHORT));
    let mut stream = outside.accept().context("waiting for the connection from inside")?.0;
    let mut line = [0; 6];
    stream.read_exact(&mut line)?;
    ensure!(&line == b"hello\n", "other bytes came: {line:?}");
    stream.write_all(b"bye")?;
    let answer = asked.join().map_err(|_| anyhow!("the asking thread panicked"))??;
    ensure!(answer == "bye", "other bytes went: {answer:?}");
    Ok(())
}
