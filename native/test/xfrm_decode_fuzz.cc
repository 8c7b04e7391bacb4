// Whatever the kernel says, the decoder refuses it or makes records that the encoder takes back, to the same record.
#include <linux/xfrm.h>

#include <cstdlib>
#include <vector>

#include "xfrm/batch.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"

namespace {

using namespace xfrmesh;

void require(bool holds) {
  if (!holds) std::abort();
}

// A record without details is a value: through a message and back it is the same.
void checkRecord(Bytes records, Tables& tables) {
  const auto record = takeRecord(records, tables);
  if (!record) return;  // of no family, or of a withheld key: to be looked at only
  require(records.empty());
  static std::vector<std::byte> room(1U << 18);
  Bytes bytes = Bytes(room).first(encodeRecord(*record, tables, 0, 1, room));
  Message message{};
  if (!takeMessage(bytes, message)) return;  // larger than an attribute can be
  RecordDecoder again(tables, {.reqid = 0, .details = false});
  require(again.decode(message));
  const std::vector<std::byte> first(record->head.data(), record->tail.data() + record->tail.size());
  require(again.records() == first);
}

// An event is refused, passed over, or one whole record.
void checkEvent(const Message& message) {
  Tables tables;
  RecordDecoder decoder(tables, {.reqid = 0, .details = true});
  const bool decoded = decoder.decodeEvent(message);
  const Bytes records = decoder.records();
  if (!decoded || records.empty()) return require(records.empty());
  require(records.size() >= kHeadBytes && load<std::uint32_t>(records) == records.size());
  const auto event = static_cast<std::uint8_t>(records[offsetof(StateRecord, operation)]);
  require(event >= 1 && event <= static_cast<std::uint8_t>(Event::kAcquire));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes rest = std::as_bytes(std::span(data, size));
  Message message{};
  while (takeMessage(rest, message)) {
    for (const bool details : {false, true}) {
      Tables tables;
      RecordDecoder decoder(tables, {.reqid = 0, .details = details});
      const bool decoded = decoder.decode(message);
      require(decoded || decoder.records().empty());
      if (decoded && !details && !decoder.records().empty()) checkRecord(decoder.records(), tables);
    }
    checkEvent(message);
    Tables tables;
    RecordDecoder filtered(tables, {.reqid = 7, .details = true});
    filtered.decode(message);
  }
  return 0;
}
