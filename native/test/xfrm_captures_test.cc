// Every message in test/data/xfrm.json, what ip sent and what the kernel answered, through decoder and encoder.
#include "test/captures.h"
#include "test/check.h"
#include "test/xfrm_records.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"

namespace xfrmesh::test {
namespace {

bool describesObject(const Message& message) {
  const auto type = message.header.nlmsg_type;
  return type == XFRM_MSG_NEWSA || type == XFRM_MSG_UPDSA || type == XFRM_MSG_NEWPOLICY || type == XFRM_MSG_UPDPOLICY;
}

// Calls `work` with each message that describes a state or policy; returns their number.
template <typename Work>
int eachObject(const Work& work) {
  int count = 0;
  for (const auto& datagram : datagramsIn(readCaptures("test/data/xfrm.json"))) {
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
