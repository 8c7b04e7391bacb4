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

// Of a digest its first word.
Half halfOf(std::uint64_t word) {
  const std::uint64_t first = htobe64(word);
  Half half{};
  std::memcpy(half.data(), &first, kHalf);
  return half;
}

Bytes bytesOfText(std::string_view text) { return std::as_bytes(std::span(text)); }

Half hashOf(std::string_view text) { return halfOf(sha512(bytesOfText(text))[0]); }

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

struct Names {
  std::string_view network;
  std::string_view interface;
  std::string_view container;
};

// The hashes of what each is called in its network.
std::vector<Half> hashesOf(const std::vector<Names>& all) {
  std::string texts;
  std::vector<std::size_t> ends;
  ends.reserve(all.size());
  for (const Names& names : all) {
    texts.append(names.interface).append(":").append(names.container);
    ends.push_back(texts.size());
  }
  std::vector<Bytes> messages;
  messages.reserve(all.size());
  std::size_t start = 0;
  for (const std::size_t end : ends) {
    messages.push_back(bytesOfText(texts).subspan(start, end - start));
    start = end;
  }
  std::vector<std::uint64_t> firsts(all.size());
  sha512Firsts(messages, firsts);
  std::vector<Half> hashes(all.size());
  std::ranges::transform(firsts, hashes.begin(), halfOf);
  return hashes;
}

// Makes owners and comments of names.
void makeOwners(const std::vector<Names>& named, Attachments& all) {
  const std::vector<Half> hashes = hashesOf(named);
  // They come by the thousand: the latest network's is kept.
  std::string_view latest;
  Half networkHash = hashOf(latest);
  for (std::size_t i = 0; i < named.size(); i++) {
    const auto& [network, interface, container] = named[i];
    if (network != latest) {
      latest = network;
      networkHash = hashOf(network);
    }
    auto& owner = all.owners.emplace_back();
    std::ranges::copy(networkHash, owner.begin());
    std::ranges::copy(hashes[i], owner.begin() + kHalf);

    CommentWriter comment(all.comments.emplace_back());
    comment.hexadecimal(networkHash);
    comment.text("-");
    comment.hexadecimal(hashes[i]);
    comment.text(", net: ");
    comment.text(network);
    comment.text(", if: ");
    comment.text(interface);
    comment.text(", id: ");
    comment.text(container);
    comment.end();
  }
}

}  // namespace

bool takeAttachments(const AttachmentTexts& given, Attachments& all) {
  all = {};
  all.owners.reserve(given.counts.size());
  all.comments.reserve(given.counts.size());
  all.ends.reserve(given.counts.size());
  std::string_view rest(reinterpret_cast<const char*>(given.texts.data()), given.texts.size());
  std::vector<Names> names;
  names.reserve(given.counts.size());
  for (const std::uint32_t count : given.counts) {
    const auto network = takeText(rest);
    const auto interface = takeText(rest);
    const auto container = takeText(rest);
    if (!network || !interface || !container) return false;
    if (!given.namesChecked &&
        (!isPlain(*network, kLongestName) || !isInterface(*interface) || !isPlain(*container, kLongestName)))
      return false;
    if (!takeAddresses(rest, count, all)) return false;
    names.push_back({*network, *interface, *container});
  }
  makeOwners(names, all);
  // Of texts with a NUL in them something is left.
  return rest.empty();
}

}  // namespace xfrmesh
