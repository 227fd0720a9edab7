//! `tidewire key new`: an API key for a program that publishes.

use tidewire_adapters::api_key;

pub(super) fn new(name: &str) -> anyhow::Result<()> {
    let (key, hash) = api_key::generate()?;
    super::print(&format!(
        "The key, shown this once; it goes to the program that publishes:\n\n  {}\n\n\
         For the server's configuration file, which never holds the key itself:\n\n  \
         [[auth.keys]]\n  name = {name:?}\n  hash = \"{hash}\"\n  \
         # What it may do beside what the namespaces allow:\n  \
         # grants = {{ publish = [\"*\"] }}\n",
        key.expose(),
    ))
}
