// Captures in test/data: what a tool sent, what the kernel answered, and what the tool printed of it.
#pragma once

#include <linux/netlink.h>

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace xfrmesh::test {

inline std::string readCaptures(const char* file) {
  std::ifstream stream(file);
  return std::string{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline int hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The strings in JSON that are netlink messages in hex: long enough for a header.
inline std::vector<std::vector<std::byte>> datagramsIn(std::string_view text) {
  std::vector<std::vector<std::byte>> found;
  for (std::size_t at = text.find('"'); at != std::string_view::npos; at = text.find('"', at + 1)) {
    std::vector<std::byte> bytes;
    std::size_t end = at + 1;
    while (end + 1 < text.size() && hexDigit(text[end]) >= 0 && hexDigit(text[end + 1]) >= 0) {
      bytes.push_back(static_cast<std::byte>(hexDigit(text[end]) * 16 + hexDigit(text[end + 1])));
      end += 2;
    }
    if (end < text.size() && text[end] == '"' && bytes.size() >= sizeof(nlmsghdr)) found.push_back(std::move(bytes));
  }
  return found;
}

// One capture's JSON, by its name; empty if there is none.
inline std::string_view captureNamed(std::string_view text, std::string_view name) {
  const std::string key = R"({"name": ")" + std::string(name) + '"';
  const std::size_t from = text.find(key);
  return from == std::string_view::npos ? std::string_view{} : text.substr(from, text.find('\n', from) - from);
}

// The part of a capture from one of its fields to the next: "sent", "received", "status", "text".
inline std::string_view fieldsBetween(std::string_view capture, std::string_view first, std::string_view next) {
  const auto at = [&](std::string_view field) { return capture.find('"' + std::string(field) + "\": "); };
  const std::size_t from = at(first);
  if (from == std::string_view::npos) return {};
  return next.empty() ? capture.substr(from) : capture.substr(from, at(next) - from);
}

}  // namespace xfrmesh::test
