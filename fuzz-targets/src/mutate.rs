use rand::{RngExt, rngs::StdRng};

/// No input grows beyond this.
const MAX_LEN: usize = 4_096;

/// What tends to be mistaken.
const TOKENS: &[&[u8]] = &[
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"-",
    b"+",
    b".",
    b"0",
    b"00",
    b"-1",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"4294967296",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b",",
    b":",
    b"null",
    b"1e400",
    b"@",
    b"?",
    b"%00",
    b"%2f",
    b"/",
    b"`",
    b"'",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    "é".as_bytes(),
    "\u{202e}".as_bytes(),
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\x0f",
];

/// One of the inputs with a few changes.
pub(crate) fn mutate(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = any(rng, corpus).clone();
    for _ in 0..rng.random_range(1..=6) {
        change(rng, &mut input, corpus);
    }
    input.truncate(MAX_LEN);
    input
}

fn change(rng: &mut StdRng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let (from, to) = range(rng, input.len());
    match rng.random_range(0..8) {
        0 => flip_bit(rng, input),
        1 => set_byte(rng, input),
        2 => insert(input, from, &[rng.random()]),
        3 => {
            let token = *any(rng, TOKENS);
            insert(input, from, token);
        }
        4 => drop(input.splice(from..to, any(rng, TOKENS).iter().copied())),
        5 => drop(input.drain(from..to)),
        6 => {
            let piece = input[from..to].to_vec();
            let at = rng.random_range(0..=input.len());
            insert(input, at, &piece);
        }
        _ => {
            let other = any(rng, corpus);
            let (start, end) = range(rng, other.len());
            input.splice(from..to, other[start..end].iter().copied());
        }
    }
}

fn any<'a, T>(rng: &mut StdRng, all: &'a [T]) -> &'a T {
    &all[rng.random_range(0..all.len())]
}

fn range(rng: &mut StdRng, len: usize) -> (usize, usize) {
    let (one, other) = (rng.random_range(0..=len), rng.random_range(0..=len));
    (one.min(other), one.max(other))
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

fn flip_bit(rng: &mut StdRng, input: &mut [u8]) {
    if !input.is_empty() {
        let at = rng.random_range(0..input.len());
        input[at] ^= 1 << rng.random_range(0..8);
    }
}

fn set_byte(rng: &mut StdRng, input: &mut [u8]) {
    if !input.is_empty() {
        let at = rng.random_range(0..input.len());
        input[at] = rng.random();
    }
}
