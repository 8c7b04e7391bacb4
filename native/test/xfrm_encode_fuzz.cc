// Whatever the records, takeRecord refuses them or encodeRecord makes of each a message that a strict reader takes.
#include <sys/socket.h>

#include <cstdlib>
#include <vector>

#include "xfrm/batch.h"
#include "xfrm/encode.h"

namespace {

using namespace xfrmesh;

void require(bool holds) {
  if (!holds) std::abort();
}

constexpr std::uint8_t kOperations = 6;

Tables twoOfEach() {
  Tables tables;
  const std::uint64_t key = 1;
  tables.addKey(bytesOf(key));
  tables.addKey({});
  tables.addAlgorithm("rfc4106(gcm(aes))");
  tables.addAlgorithm(std::string(100, 'x'));
  return tables;
}

// The input as one record whose head is in order: what chance seldom finds.
std::vector<std::byte> mended(Bytes input) {
  std::vector<std::byte> bytes(input.begin(), input.end());
  if (bytes.size() < kHeadBytes) return bytes;
  bytes.resize(align8(bytes.size()));
  auto head = load<StateRecord>(bytes);
  head.length = static_cast<std::uint32_t>(bytes.size());
  head.operation = static_cast<Operation>(1 + static_cast<std::uint8_t>(head.operation) % kOperations);
  head.family = head.family % 2 == 0 ? AF_INET : AF_INET6;
  if (!isPolicy(head.operation)) {
    head.cipher %= 3;
    head.cipherKey = head.cipherKey % 3 == 2 ? kNoKey : head.cipherKey % 3;
    head.authKey = head.authKey % 3 == 2 ? kNoKey : head.authKey % 3;
    head.cipherAlgorithm %= 2;
    head.authAlgorithm = head.authAlgorithm % 3 == 2 ? kNoAlgorithm : head.authAlgorithm % 3;
  }
  std::memcpy(bytes.data(), &head, sizeof head);
  return bytes;
}

void checkMessage(Bytes bytes) {
  Message message{};
  require(takeMessage(bytes, message));
  require(bytes.empty());
}

void encode(Bytes records) {
  const Tables tables = twoOfEach();
  static std::vector<std::byte> room(1U << 17);
  Bytes rest = records;
  while (const auto record = takeRecord(rest, tables)) {
    const std::size_t size = encodeRecord(*record, tables, 0, 1, room);
    if (size != 0) checkMessage(Bytes(room).first(size));
    // One byte too little is too little.
    if (size != 0) require(encodeRecord(*record, tables, 0, 1, std::span(room.data(), size - 1)) == 0);
    const std::size_t question = encodeGet(*record, 0, 1, room);
    if (question != 0) checkMessage(Bytes(room).first(question));
  }
  XfrmBatch batch(records, twoOfEach());
  require(batch.parse() == rest.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = std::as_bytes(std::span(data, size));
  encode(input);
  encode(mended(input));
  return 0;
}
