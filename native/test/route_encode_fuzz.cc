// Whatever the records, takeNeighbour refuses them or encodeNeighbour makes of each a message that a strict reader
// takes.
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "route/batch.h"
#include "route/encode.h"

namespace {

using namespace xfrmesh;

void require(bool holds) {
  if (!holds) std::abort();
}

// The input as records whose heads are in order: what chance seldom finds.
std::vector<std::byte> mended(Bytes input) {
  std::vector<std::byte> bytes(input.begin(), input.end());
  bytes.resize(bytes.size() / kNeighbourBytes * kNeighbourBytes);
  constexpr std::array<std::uint8_t, 3> kFamilies{AF_INET, AF_INET6, AF_BRIDGE};
  for (std::size_t at = 0; at < bytes.size(); at += kNeighbourBytes) {
    auto record = load<NeighbourRecord>(bytes, at);
    record.length = kNeighbourBytes;
    record.operation = static_cast<NeighbourOperation>(1 + static_cast<std::uint8_t>(record.operation) % 2);
    record.family = kFamilies[record.family % kFamilies.size()];
    record.destinationFamily = record.family == AF_BRIDGE ? kFamilies[record.destinationFamily % 2] : record.family;
    record.given &= kGivenAll;
    std::memcpy(bytes.data() + at, &record, sizeof record);
  }
  return bytes;
}

void checkMessage(Bytes bytes) {
  Message message{};
  require(takeMessage(bytes, message));
  require(bytes.empty());
}

void encode(Bytes records) {
  std::array<std::byte, 256> room{};
  Bytes rest = records;
  while (const auto record = takeNeighbour(rest)) {
    const std::size_t size = encodeNeighbour(*record, 0, 1, room);
    require(size != 0);
    checkMessage(Bytes(room).first(size));
    // One byte too little is too little.
    require(encodeNeighbour(*record, 0, 1, std::span(room.data(), size - 1)) == 0);
    checkMessage(Bytes(room).first(encodeNeighbourGet(*record, 0, 1, room)));
  }
  NeighbourBatch batch(records);
  require(batch.parse() == rest.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = std::as_bytes(std::span(data, size));
  encode(input);
  encode(mended(input));
  return 0;
}
