//! Lists the public API of a crate, an item a line: `public-api-listing FILE.json`, a file that rustdoc wrote.
//!
//! What each type has by itself (auto traits, blanket implementations) is left out.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: public-api-listing FILE.json")?;
    let api = public_api::Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()?;
    print!("{api}");
    Ok(())
}
