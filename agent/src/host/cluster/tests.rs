//! Stands for an API server by the documented form of a Node (Kubernetes API, `v1.Node`) over plain HTTP; it shows nothing of TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use super::*;

/// A server whose only Node has this name; its address.
fn server(name: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = json!({"kind": "Node", "metadata": {"name": name}}).to_string();
            let length = body.len();
            if stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let _ = stream.write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
            }
        }
    });
    address
}

/// A kubeconfig for this server; the rest are lines of the cluster and of the user.
fn kubeconfig(server: &str, cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n\
         clusters:\n- name: it\n  cluster: {{server: \"{server}\"{cluster}}}\nusers:\n- name: it\n  user: {{{user}}}\n"
    )
}

/// What the real one answers on a machine with these files.
async fn ask(files: &[(&str, String)]) -> Result<Option<Node>, ClusterError> {
    let root = tempfile::tempdir().unwrap();
    let below = Files::below(root.path()).unwrap();
    for (path, text) in files {
        below.write(path.as_ref(), text.as_bytes(), 0o600).unwrap();
    }
    ApiServer::new(&below).node("gpu-1").await
}

async fn name(files: &[(&str, String)]) -> String {
    ask(files).await.unwrap().unwrap().name
}

#[tokio::test]
async fn the_kubelets_own_kubeconfig_comes_before_that_of_a_managed_platform() {
    let own = (KUBELET_KUBECONFIG, kubeconfig(&server("by kubeadm"), "", ""));
    let managed = (MANAGED_KUBECONFIG, kubeconfig(&server("by the platform"), "", ""));
    assert_eq!(name(&[own.clone(), managed.clone()]).await, "by kubeadm");
    assert_eq!(name(&[own]).await, "by kubeadm");
    assert_eq!(name(&[managed]).await, "by the platform");
    let Err(ClusterError::NoCredential(why)) = ask(&[]).await else { panic!("a credential from nowhere") };
    assert!(why.contains(KUBELET_KUBECONFIG), "{why}");
}

#[tokio::test]
async fn no_program_is_started_for_a_credential() {
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false, interactiveMode: Never}";
    let managed = kubeconfig(&server("by the platform"), "", exec);
    let Err(ClusterError::NoCredential(why)) = ask(&[(MANAGED_KUBECONFIG, managed)]).await else { panic!("it was asked") };
    assert_eq!(why, format!("{MANAGED_KUBECONFIG}: its credential comes from another program (exec)"));
}

#[tokio::test]
async fn no_proxy_comes_between_a_node_and_its_api_server() {
    // Nobody listens there.
    let proxied = kubeconfig(&server("gpu-1"), ", proxy-url: \"http://127.0.0.1:9\"", "");
    assert_eq!(name(&[(KUBELET_KUBECONFIG, proxied)]).await, "gpu-1");
}

/// A server that accepts one request: its address, and what will have been sent.
fn recorder() -> (String, std::thread::JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let recorded = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
        let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        reader.read_exact(&mut body).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
        (head, serde_json::from_slice(&body).unwrap())
    });
    (address, recorded)
}

#[tokio::test]
async fn labels_are_merged_into_the_node_and_nothing_else_is_sent() {
    let root = tempfile::tempdir().unwrap();
    let files = Files::below(root.path()).unwrap();
    let (address, recorded) = recorder();
    files.write(KUBELET_KUBECONFIG.as_ref(), kubeconfig(&address, "", "").as_bytes(), 0o600).unwrap();
    let labels = BTreeMap::from([("nvidia.com/gpu.count".to_owned(), "1".to_owned())]);
    ApiServer::new(&files).set_labels("gpu-1", &labels).await.unwrap();
    let (head, body) = recorded.join().unwrap();
    assert!(head.starts_with("PATCH /api/v1/nodes/gpu-1?fieldManager=gpuk-agent HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/strategic-merge-patch+json\r\n"), "{head}");
    assert_eq!(body, json!({"metadata": {"labels": {"nvidia.com/gpu.count": "1"}}}));
}
