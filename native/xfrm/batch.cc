#include "xfrm/batch.h"

#include <linux/xfrm.h>

#include "netlink/secret_room.h"
#include "xfrm/decode.h"

namespace xfrmesh {
namespace {

std::uint64_t markIn(Bytes tail) {
  std::uint64_t mark = 0;
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    if (attribute.type == XFRMA_MARK && attribute.payload.size() == sizeof mark) {
      mark = load<std::uint64_t>(attribute.payload);
    }
  }
  return mark;
}

// Drops from both records of a state what the kernel shows, or not, whatever was asked for.
void leaveOpen(std::vector<std::byte>& shown, std::vector<std::byte>& wanted) {
  auto theirs = load<StateRecord>(shown);
  auto ours = load<StateRecord>(wanted);
  // It says how it truncates even where that was left to it.
  if (ours.authTruncateBits == 0) theirs.authTruncateBits = 0;
  if (theirs.cipherKey == kWithheldKey) {
    theirs.cipherKey = ours.cipherKey = kNoKey;
    theirs.salted = ours.salted = 0;
  }
  if (theirs.authKey == kWithheldKey) theirs.authKey = ours.authKey = kNoKey;
  std::memcpy(shown.data(), &theirs, sizeof theirs);
  std::memcpy(wanted.data(), &ours, sizeof ours);
}

// Two records mean the same if they make the same message: a record may say one thing in two ways (a key with its salt,
// or without), a message cannot.
bool sameMessage(Bytes one, const Tables& oneTables, Bytes other, const Tables& otherTables) {
  const auto first = takeRecord(one, oneTables);
  const auto second = takeRecord(other, otherTables);
  if (!first || !second) return false;
  constexpr std::size_t kRoom = 16U << 10;
  SecretRoom room(kRoom * 2);
  const std::span<std::byte> all = room.all();
  const std::size_t size = encodeRecord(*first, oneTables, 0, 0, all.first(kRoom));
  const std::size_t otherSize = encodeRecord(*second, otherTables, 0, 0, all.last(kRoom));
  return size != 0 && size == otherSize && std::memcmp(all.data(), all.data() + kRoom, size) == 0;
}

}  // namespace

bool XfrmBatch::parse() {
  starts_.clear();
  if (records_.size() > UINT32_MAX) return false;
  starts_.reserve(records_.size() / kHeadBytes);
  Bytes rest = records_;
  while (!rest.empty()) {
    starts_.push_back(static_cast<std::uint32_t>(records_.size() - rest.size()));
    if (!takeRecord(rest, tables_)) return false;
  }
  return true;
}

std::size_t XfrmBatch::encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                              std::span<std::byte> room) {
  return encodeRecord(record(index), tables_, flags, sequence, room);
}

Batch::Recovery XfrmBatch::recovery(std::uint32_t index) const {
  switch (record(index).operation()) {
    case Operation::kAddState:
    case Operation::kAddPolicy:
      return Recovery::kAsk;
    case Operation::kDeleteState:
    case Operation::kDeletePolicy:
      return Recovery::kRepeatIfThere;
    case Operation::kUpdateState:
    case Operation::kUpdatePolicy:
      return Recovery::kRepeat;
  }
  return Recovery::kRepeat;
}

std::size_t XfrmBatch::encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) {
  return encodeGet(record(index), NLM_F_ACK, sequence, room);
}

bool XfrmBatch::confirms(std::uint32_t index, const Message& answer) {
  Tables tables;
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  if (!decoder.decode(answer) || decoder.records().empty()) return false;
  std::vector<std::byte> shown = decoder.records();
  const RecordView meant = record(index);
  if (recovery(index) == Recovery::kRepeatIfThere)
    return markIn(Bytes(shown).subspan(kHeadBytes)) == markIn(meant.tail);
  std::vector<std::byte> wanted(meant.head.begin(), meant.head.end());
  wanted.insert(wanted.end(), meant.tail.begin(), meant.tail.end());
  if (!isPolicy(meant.operation())) leaveOpen(shown, wanted);
  return sameMessage(shown, tables, wanted, tables_);
}

}  // namespace xfrmesh
