// Whatever the kernel says, the decoder refuses it or makes records that the encoder takes back, to the same record.
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "route/batch.h"
#include "route/decode.h"
#include "route/encode.h"

namespace {

using namespace xfrmesh;

void require(bool holds) {
  if (!holds) std::abort();
}

void checkRecord(Bytes records) {
  const std::vector<std::byte> first(records.begin(), records.end());
  const auto record = takeNeighbour(records);
  require(record && records.empty());
  std::array<std::byte, 256> room{};
  Bytes bytes = Bytes(room).first(encodeNeighbour(*record, 0, 1, room));
  Message message{};
  require(takeMessage(bytes, message));
  NeighbourDecoder again;
  require(again.decode(message));
  require(again.records() == first);
  // What is there is what its deletion means.
  NeighbourRecord deletion = *record;
  deletion.operation = NeighbourOperation::kDelete;
  NeighbourBatch batch(bytesOf(deletion));
  require(batch.parse() && batch.confirms(0, message));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes rest = std::as_bytes(std::span(data, size));
  Message message{};
  while (takeMessage(rest, message)) {
    NeighbourDecoder decoder;
    const bool decoded = decoder.decode(message);
    require(decoded || decoder.records().empty());
    if (!decoder.records().empty()) checkRecord(decoder.records());
    constexpr std::int32_t kLink = 100;
    NeighbourDecoder filtered(kLink);
    filtered.decode(message);
    require(filtered.records().empty() || filtered.records() == decoder.records());
  }
  return 0;
}
