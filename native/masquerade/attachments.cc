#include "masquerade/attachments.h"

#include <arpa/inet.h>
#include <endian.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

// CNI's file for the result of an attachment is named by all three, and a file's name has 255 bytes.
constexpr std::size_t kLongestName = 255;
constexpr std::size_t kLongestInterface = 15;  // IFNAMSIZ, without its NUL

bool isPlain(std::string_view text, std::size_t longest) {
  return !text.empty() && text.size() <= longest &&
         std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

// As the kernel's dev_valid_name, of printable ASCII.
bool isInterface(std::string_view name) {
  return isPlain(name, kLongestInterface) && name.find_first_of(" /:") == std::string_view::npos && name != "." &&
         name != "..";
}

// The decimal number that the text is, without leading zeroes; nullopt if that is none up to `most`.
std::optional<std::uint8_t> prefixIn(std::string_view text, unsigned most) {
  if (text.empty() || text.size() > 3 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  if (value > most) return std::nullopt;
  return static_cast<std::uint8_t>(value);
}

// An address with its prefix.
std::optional<Mapping> mappingIn(std::string_view text) {
  const std::size_t slash = text.find('/');
  char address[INET6_ADDRSTRLEN] = {};
  if (slash >= sizeof address) return std::nullopt;  // none too
  std::memcpy(address, text.data(), slash);
  in6_addr parsed{};
  std::uint8_t family = AF_INET6;
  if (inet_pton(AF_INET, address, &parsed.s6_addr[12]) == 1) {
    parsed.s6_addr[10] = parsed.s6_addr[11] = 0xff;
    family = AF_INET;
  } else if (inet_pton(AF_INET6, address, &parsed) != 1) {
    return std::nullopt;
  } else if (IN6_IS_ADDR_V4MAPPED(&parsed)) {
    family = AF_INET;
  }
  const bool isMulticast = family == AF_INET ? parsed.s6_addr[12] >> 4 == 0xe : parsed.s6_addr[0] == 0xff;
  const auto prefix = prefixIn(text.substr(slash + 1), family == AF_INET ? 32 : 128);
  if (isMulticast || !prefix) return std::nullopt;
  const Key key = load<Key>(bytesOf(parsed));
  return Mapping{.address = key, .subnet = subnetOf(key, family, *prefix)};
}

// Whether no address is there twice. Most often there are one or two.
bool areDistinct(std::span<const Mapping> mappings) {
  if (mappings.size() < 2) return true;
  std::vector<Key> addresses;
  addresses.reserve(mappings.size());
  for (const Mapping& mapping : mappings) addresses.push_back(mapping.address);
  std::ranges::sort(addresses);
  return std::ranges::adjacent_find(addresses) == addresses.end();
}

// Takes an attachment's addresses off the span, so many. False if they are not that.
bool takeAddresses(std::string_view& rest, std::uint32_t count, Attachments& all) {
  const std::size_t first = all.mappings.size();
  for (std::uint32_t i = 0; i < count; i++) {
    const auto text = takeText(rest);
    if (!text) return false;
    const auto mapping = mappingIn(*text);
    if (!mapping) return false;
    all.mappings.push_back(*mapping);
  }
  if (!areDistinct(std::span(all.mappings).subspan(first))) return false;
  all.ends.push_back(static_cast<std::uint32_t>(all.mappings.size()));
  return true;
}

// Makes owners and comments of names.
class OwnerMaker {
 public:
  void make(std::string_view network, std::string_view interface, std::string_view container, Attachments& all) {
    if (network != latest_) {
      latest_ = network;
      networkHash_ = hashOf(network);
    }
    name_.assign(interface).append(":").append(container);
    const Half hash = hashOf(name_);
    auto& owner = all.owners.emplace_back();
    std::ranges::copy(networkHash_, owner.begin());
    std::ranges::copy(hash, owner.begin() + kHalf);

    CommentWriter comment(all.comments.emplace_back());
    comment.hexadecimal(networkHash_);
    comment.text("-");
    comment.hexadecimal(hash);
    comment.text(", net: ");
    comment.text(network);
    comment.text(", if: ");
    comment.text(interface);
    comment.text(", id: ");
    comment.text(container);
    comment.end();
  }

 private:
  // They come by the thousand: the latest network's is kept.
  std::string_view latest_;
  Half networkHash_ = hashOf("");
  std::string name_;
};

}  // namespace

bool takeAttachments(const AttachmentTexts& given, Attachments& all) {
  all = {};
  all.owners.reserve(given.counts.size());
  all.comments.reserve(given.counts.size());
  all.ends.reserve(given.counts.size());
  std::string_view rest(reinterpret_cast<const char*>(given.texts.data()), given.texts.size());
  OwnerMaker owners;
  for (const std::uint32_t count : given.counts) {
    const auto network = takeText(rest);
    const auto interface = takeText(rest);
    const auto container = takeText(rest);
    if (!network || !interface || !container) return false;
    if (!given.namesChecked &&
        (!isPlain(*network, kLongestName) || !isInterface(*interface) || !isPlain(*container, kLongestName)))
      return false;
    if (!takeAddresses(rest, count, all)) return false;
    owners.make(*network, *interface, *container, all);
  }
  // Of texts with a NUL in them something is left.
  return rest.empty();
}

}  // namespace xfrmesh
