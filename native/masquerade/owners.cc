#include "masquerade/owners.h"

#include <endian.h>

#include <algorithm>
#include <string_view>

#include "masquerade/sha512.h"

namespace xfrmesh {
namespace {

constexpr std::size_t kHalf = 8;

using Half = std::array<std::byte, kHalf>;

Half hashOf(std::string_view text) {
  const std::uint64_t first = htobe64(sha512(std::as_bytes(std::span(text)))[0]);
  Half half{};
  std::memcpy(half.data(), &first, kHalf);
  return half;
}

// The text up to the next NUL, which is taken too; nullopt if there is none.
std::optional<std::string_view> takeText(std::string_view& rest) {
  const std::size_t end = rest.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  const auto text = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return text;
}

// Appends to a comment as much as there is room for.
class CommentWriter {
 public:
  explicit CommentWriter(CommentSlot& slot) : slot_(slot) {}

  void hexadecimal(const Half& half) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    for (const std::byte byte : half) {
      put(kDigits[std::to_integer<std::size_t>(byte >> 4)]);
      put(kDigits[std::to_integer<std::size_t>(byte & std::byte{15})]);
    }
  }

  // Without quotes.
  void text(std::string_view text) {
    if (text.find('"') == std::string_view::npos) {
      const std::size_t size = std::min(text.size(), kLongestComment - size_);
      std::memcpy(slot_.text + size_, text.data(), size);
      size_ += size;
      return;
    }
    for (const char c : text)
      if (c != '"') put(c);
  }

  void end() { slot_.length = static_cast<std::uint8_t>(size_ + 1); }

 private:
  void put(char c) {
    if (size_ < kLongestComment) slot_.text[size_++] = c;
  }

  CommentSlot& slot_;
  std::size_t size_ = 0;
};

}  // namespace

std::optional<Owners> ownersOf(Bytes names) {
  Owners all;
  std::string_view rest(reinterpret_cast<const char*>(names.data()), names.size());
  // They come by the thousand: the latest network's is kept.
  std::string_view latest;
  Half networkHash{};
  while (!rest.empty()) {
    const auto network = takeText(rest);
    const auto name = takeText(rest);
    if (!network || !name) return std::nullopt;
    // No interface has a colon in its name.
    const std::size_t colon = name->find(':');
    if (network->empty() || colon == std::string_view::npos) return std::nullopt;
    if (*network != latest) {
      latest = *network;
      networkHash = hashOf(latest);
    }
    const Half hash = hashOf(*name);
    auto& owner = all.owners.emplace_back();
    std::ranges::copy(networkHash, owner.begin());
    std::ranges::copy(hash, owner.begin() + kHalf);

    CommentWriter comment(all.comments.emplace_back());
    comment.hexadecimal(networkHash);
    comment.text("-");
    comment.hexadecimal(hash);
    comment.text(", net: ");
    comment.text(*network);
    comment.text(", if: ");
    comment.text(name->substr(0, colon));
    comment.text(", id: ");
    comment.text(name->substr(colon + 1));
    comment.end();
  }
  return all;
}

}  // namespace xfrmesh
