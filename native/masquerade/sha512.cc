#include "masquerade/sha512.h"

#include <endian.h>

#include <algorithm>
#include <cstring>

namespace xfrmesh {
namespace {

constexpr std::size_t kBlock = 128;
using Words = std::array<std::uint64_t, 8>;

// The first 64 bits of the fractional parts of the square roots of the first 8 primes, and of the cube roots of the
// first 80.
constexpr Words kInitial = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
constexpr std::array<std::uint64_t, 80> kRounds = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc, 0x3956c25bf348b538,
    0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118, 0xd807aa98a3030242, 0x12835b0145706fbe,
    0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2, 0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235,
    0xc19bf174cf692694, 0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5, 0x983e5152ee66dfab,
    0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4, 0xc6e00bf33da88fc2, 0xd5a79147930aa725,
    0x06ca6351e003826f, 0x142929670a0e6e70, 0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed,
    0x53380d139d95b3df, 0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30, 0xd192e819d6ef5218,
    0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8, 0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
    0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8, 0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373,
    0x682e6ff3d6b2b8a3, 0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b, 0xca273eceea26619c,
    0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178, 0x06f067aa72176fba, 0x0a637dc5a2c898a6,
    0x113f9804bef90dae, 0x1b710b35131c471b, 0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc,
    0x431d67c49c100d4c, 0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

// What follows works on a word of one digest, and on vectors of one word each of several. It is compiled for each kind
// of processor, so it is inlined whole, and how a vector is returned is of no concern.
#pragma GCC diagnostic ignored "-Wpsabi"

template <typename Word>
[[gnu::always_inline]] inline Word rotated(const Word& word, int bits) {
  return word >> bits | word << (64 - bits);
}

// A block, as sixteen words.
template <typename Word>
using Schedule = std::array<Word, 16>;

// The next word but fifteen, from those before it.
template <typename Word>
[[gnu::always_inline]] inline void expand(Schedule<Word>& w, std::size_t i) {
  const Word& x = w[(i + 1) % 16];
  const Word& y = w[(i + 14) % 16];
  w[i] += w[(i + 9) % 16] + (rotated(x, 1) ^ rotated(x, 8) ^ x >> 7) + (rotated(y, 19) ^ rotated(y, 61) ^ y >> 6);
}

// Eight words that move up by one each round: not in memory, but in name.
template <typename Word>
[[gnu::always_inline]] inline void round(std::array<Word, 8>& v, std::size_t i, const Word& word) {
  const auto at = [&](std::size_t n) __attribute__((always_inline))->Word& { return v[(n - i) % 8]; };
  const Word& e = at(4);
  const Word one = at(7) + (rotated(e, 14) ^ rotated(e, 18) ^ rotated(e, 41)) + (at(6) ^ (e & (at(5) ^ at(6)))) + word;
  const Word& a = at(0);
  const Word two = (rotated(a, 28) ^ rotated(a, 34) ^ rotated(a, 39)) + ((a & at(1)) | (at(2) & (a | at(1))));
  at(3) += one;
  at(7) = one + two;
}

template <typename Word>
[[gnu::always_inline]] inline void compress(std::array<Word, 8>& state, const Schedule<Word>& block) {
  Schedule<Word> w = block;
  std::array<Word, 8> v = state;
  for (std::size_t from = 0; from < kRounds.size(); from += w.size()) {
#pragma GCC unroll 16
    for (std::size_t i = 0; i < w.size(); i++) {
      if (from > 0) expand(w, i);
      round(v, i, kRounds[from + i] + w[i]);
    }
  }
  for (std::size_t i = 0; i < state.size(); i++) state[i] += v[i];
}

std::uint64_t wordAt(Bytes block, std::size_t i) {
  return be64toh(load<std::uint64_t>(block, i * sizeof(std::uint64_t)));
}

void compressOne(Words& state, Bytes block) {
  Schedule<std::uint64_t> words;
#pragma GCC unroll 16
  for (std::size_t i = 0; i < words.size(); i++) words[i] = wordAt(block, i);
  compress(state, words);
}

// Where a message ends: what is left of it, a one bit, zeroes, and its length in bits in the last sixteen bytes.
class End {
 public:
  End(Bytes rest, std::size_t size) : used_(rest.size() <= kLongestRest ? kBlock : 2 * kBlock) {
    if (!rest.empty()) std::memcpy(blocks_.data(), rest.data(), rest.size());
    blocks_[rest.size()] = std::byte{0x80};
    const std::uint64_t bits = htobe64(std::uint64_t{size} * 8);
    std::memcpy(blocks_.data() + used_ - sizeof bits, &bits, sizeof bits);
  }

  // As much as one block has room for.
  static constexpr std::size_t kLongestRest = kBlock - 17;

  // One block or two.
  [[nodiscard]] Bytes blocks() const { return Bytes(blocks_).first(used_); }

 private:
  std::array<std::byte, 2 * kBlock> blocks_{};
  std::size_t used_;
};

#ifdef __x86_64__

constexpr std::size_t kLanes = 4;
using Vector [[gnu::vector_size(kLanes * sizeof(std::uint64_t))]] = std::uint64_t;

// A block of each lane, word by word.
using Blocks = std::array<std::array<std::uint64_t, kLanes>, 16>;

[[gnu::always_inline]] inline void compressLanes(Blocks& blocks) {
  std::array<Vector, 8> state;
  for (std::size_t i = 0; i < state.size(); i++) state[i] = kInitial[i] - Vector{};
  Schedule<Vector> words;
  std::memcpy(words.data(), blocks.data(), sizeof blocks);
  compress(state, words);
  std::memcpy(blocks.data(), state.data(), sizeof state);
}

// Puts the digests, of messages of one block each, where the blocks were.
using CompressLanes = void (*)(Blocks&);
[[gnu::target("avx512vl")]] void compressByAvx512(Blocks& blocks) { compressLanes(blocks); }
[[gnu::target("avx2")]] void compressByAvx2(Blocks& blocks) { compressLanes(blocks); }

// nullptr where one after the other is as fast.
CompressLanes bestOfLanes() {
  if (__builtin_cpu_supports("avx512vl")) return compressByAvx512;
  return __builtin_cpu_supports("avx2") ? compressByAvx2 : nullptr;
}

// Messages of one block each, as many at once as there are lanes.
class Lanes {
 public:
  Lanes(CompressLanes compress, std::span<std::uint64_t> firsts) : compress_(compress), firsts_(firsts) {}

  void add(Bytes message, std::size_t index) {
    const End end(message, message.size());
    for (std::size_t i = 0; i < blocks_.size(); i++) blocks_[i][used_] = wordAt(end.blocks(), i);
    indexes_[used_++] = index;
    if (used_ == kLanes) flush();
  }

  void flush() {
    compress_(blocks_);
    for (std::size_t lane = 0; lane < used_; lane++) firsts_[indexes_[lane]] = blocks_[0][lane];
    used_ = 0;
  }

 private:
  CompressLanes compress_;
  std::span<std::uint64_t> firsts_;
  Blocks blocks_{};
  std::array<std::size_t, kLanes> indexes_{};
  std::size_t used_ = 0;
};

#endif

}  // namespace

Words sha512(Bytes message) {
  Words state = kInitial;
  Bytes rest = message;
  for (; rest.size() >= kBlock; rest = rest.subspan(kBlock)) compressOne(state, rest.first(kBlock));
  const End end(rest, message.size());
  for (Bytes last = end.blocks(); !last.empty(); last = last.subspan(kBlock)) compressOne(state, last.first(kBlock));
  return state;
}

void sha512Firsts(std::span<const Bytes> messages, std::span<std::uint64_t> firsts) {
#ifdef __x86_64__
  static const CompressLanes compress = bestOfLanes();
  if (compress != nullptr) {
    Lanes lanes(compress, firsts);
    for (std::size_t i = 0; i < messages.size(); i++) {
      if (messages[i].size() <= End::kLongestRest)
        lanes.add(messages[i], i);
      else
        firsts[i] = sha512(messages[i])[0];
    }
    lanes.flush();
    return;
  }
#endif
  std::ranges::transform(messages, firsts.begin(), [](Bytes message) { return sha512(message)[0]; });
}

}  // namespace xfrmesh
