//! Names whose label can be learnt: benign ones of words, malicious ones of random letters. The same at each run.

/// Numbers below a bound, from a linear congruential generator (Knuth, The Art of Computer Programming, volume 2, 3.3.4).
pub fn random() -> impl FnMut(usize) -> usize {
    let mut state = 1_u64;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// The first label of a name; one of words has a number below `numbers` at its end.
pub fn core(malicious: bool, numbers: usize, random: &mut impl FnMut(usize) -> usize) -> String {
    let words = ["green", "garden", "school", "music", "river", "cloud", "book", "market"];
    let letters = b"qxzjkvwpybdfghlmnrst";
    if malicious {
        return (0..14).map(|_| char::from(letters[random(20)])).collect();
    }
    format!("{}{}{}", words[random(8)], words[random(8)], random(numbers))
}
