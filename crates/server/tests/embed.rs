//! The example of a server inside another program does what it says, more than once on one store.

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its main function is the example's")]
mod embed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_embedded_and_embedded_again_on_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    for _ in 0..2 {
        assert_eq!(embed::embed(&store).await.unwrap(), "hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_leaves_the_directory_alone() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let store = directory.path().join("store");
    assert!(embed::Embedded::start(store.clone(), &address).await.is_err());
    assert!(!store.exists());
}

/// What only the program needs stays out of whatever embeds a server.
#[test]
fn an_embedded_server_brings_no_command_line_along() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let manifest: toml::Table = manifest.unwrap().parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    for program in [
        "handfast",
        "handfast-cli",
        "anstream",
        "clap",
        "comfy-table",
        "csv",
        "hdrhistogram",
        "indicatif",
        "rusqlite",
        "sqlx",
        "tempfile",
        "tikv-jemallocator",
        "tracing-subscriber",
    ] {
        assert!(!dependencies.contains_key(program), "{program}");
    }
    // Private database servers are for tests and `torture`.
    assert_eq!(dependencies["handfast-database"].get("features"), None);
}
