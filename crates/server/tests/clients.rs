//! Says loudly what plain `cargo test` leaves out.

#[expect(clippy::print_stderr, reason = "to be seen")]
fn main() {
    if std::env::var_os("CARD4E_REQUIRE_ALL").is_some() {
        eprintln!("official clients: run by ./test itself");
        return;
    }
    eprintln!(
        "\n\
         ==============================================================================\n\
         SKIPPED here: the official SDKs, tccli, curl, nginx and an http proxy.\n\
         They need Debian packages, PyPI and npm. To install them and run everything:\n\
         \n    ./test\n\
         ==============================================================================\n"
    );
}
