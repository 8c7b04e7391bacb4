// Every message in test/data/xfrm.json, what ip sent and what the kernel answered, through decoder and encoder.
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "test/check.h"
#include "test/xfrm_records.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"

namespace xfrmesh::test {
namespace {

constexpr const char* kCaptures = "test/data/xfrm.json";

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The strings in the file that are netlink messages in hex: long enough for a header whose length holds.
std::vector<std::vector<std::byte>> datagrams() {
  std::ifstream file(kCaptures);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<std::vector<std::byte>> found;
  for (std::size_t at = text.find('"'); at != std::string::npos; at = text.find('"', at + 1)) {
    std::vector<std::byte> bytes;
    std::size_t end = at + 1;
    while (end + 1 < text.size() && digit(text[end]) >= 0 && digit(text[end + 1]) >= 0) {
      bytes.push_back(static_cast<std::byte>(digit(text[end]) * 16 + digit(text[end + 1])));
      end += 2;
    }
    if (end < text.size() && text[end] == '"' && bytes.size() >= sizeof(nlmsghdr)) found.push_back(std::move(bytes));
  }
  return found;
}

bool describesObject(const Message& message) {
  const auto type = message.header.nlmsg_type;
  return type == XFRM_MSG_NEWSA || type == XFRM_MSG_UPDSA || type == XFRM_MSG_NEWPOLICY || type == XFRM_MSG_UPDPOLICY;
}

// Calls `work` with each message that describes a state or policy; returns their number.
template <typename Work>
int eachObject(const Work& work) {
  int count = 0;
  for (const auto& datagram : datagrams()) {
    Bytes rest = datagram;
    Message message{};
    while (takeMessage(rest, message)) {
      if (!describesObject(message)) continue;
      count++;
      work(message);
    }
    CHECK(rest.empty());
  }
  return count;
}

std::vector<std::byte> recordOf(const Message& message, Tables& tables, bool details) {
  RecordDecoder decoder(tables, {.reqid = 0, .details = details});
  CHECK(decoder.decode(message));
  return decoder.records();
}

}  // namespace

TEST(captured_object_goes_through_a_record_and_is_the_same_again) {
  Tables tables;
  const int count = eachObject([&](const Message& message) {
    const std::vector<std::byte> record = recordOf(message, tables, false);
    Bytes rest = record;
    const auto view = takeRecord(rest, tables);
    CHECK(view && rest.empty());
    if (!view) return;
    std::vector<std::byte> bytes(8192);
    Bytes sent = Bytes(bytes).first(encodeRecord(*view, tables, 0, 1, bytes));
    Message again{};
    CHECK(takeMessage(sent, again));
    CHECK(recordOf(again, tables, false) == record);
  });
  CHECK(count > 150);
}

TEST(captured_object_with_details_is_one_whole_record) {
  Tables tables;
  eachObject([&](const Message& message) {
    const std::vector<std::byte> record = recordOf(message, tables, true);
    Bytes rest = record;
    CHECK(takeRecord(rest, tables) && rest.empty());
  });
}

TEST(captured_objects_cut_anywhere_are_refused_or_read_within_bounds) {
  Tables tables;
  eachObject([&](const Message& message) {
    for (std::size_t size = 0; size < message.payload.size(); size += 3) {
      // A copy of its own size, so that AddressSanitizer sees the end.
      const std::vector<std::byte> part(message.payload.begin(),
                                        message.payload.begin() + static_cast<std::ptrdiff_t>(size));
      RecordDecoder decoder(tables, {.reqid = 0, .details = true});
      const bool decoded = decoder.decode({.header = message.header, .payload = part});
      CHECK(decoded || decoder.records().empty());
    }
  });
}

}  // namespace xfrmesh::test
