#include "xfrm/batch.h"

#include <linux/xfrm.h>

#include "xfrm/decode.h"

namespace xfrmesh {

bool XfrmBatch::parse() {
  views_.clear();
  views_.reserve(records_.size() / kHeadBytes);
  Bytes rest = records_;
  while (!rest.empty()) {
    const auto record = takeRecord(rest, tables_);
    if (!record) return false;
    views_.push_back(*record);
  }
  return true;
}

std::size_t XfrmBatch::encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                              std::span<std::byte> room) {
  return encodeRecord(views_[index], tables_, flags, sequence, room);
}

Batch::Recovery XfrmBatch::recovery(std::uint32_t index) const {
  switch (views_[index].operation()) {
    case Operation::kAddState:
    case Operation::kAddPolicy:
      return Recovery::kAsk;
    case Operation::kDeleteState:
    case Operation::kDeletePolicy:
      return Recovery::kRepeatUntilGone;
    case Operation::kUpdateState:
    case Operation::kUpdatePolicy:
      return Recovery::kRepeat;
  }
  return Recovery::kRepeat;
}

std::size_t XfrmBatch::encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) {
  return encodeGet(views_[index], NLM_F_ACK, sequence, room);
}

// The kernel's object is what was asked for if, sent back through the encoder, it gives the same message: a record may
// say one thing in two ways (a key with its salt, or without), a message cannot.
bool XfrmBatch::confirms(std::uint32_t index, const Message& answer) {
  Tables tables;
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  if (!decoder.decode(answer) || decoder.records().empty()) return false;
  std::vector<std::byte> shown = decoder.records();
  if (!isPolicy(views_[index].operation()) && views_[index].state().authTruncateBits == 0) {
    // The kernel says how it truncates even where that was left to it.
    auto state = load<StateRecord>(shown);
    state.authTruncateBits = 0;
    std::memcpy(shown.data(), &state, sizeof state);
  }
  Bytes found = shown;
  const auto record = takeRecord(found, tables);
  if (!record) return false;
  constexpr std::size_t kRoom = 8192;
  std::vector<std::byte> theirs(kRoom);
  std::vector<std::byte> ours(kRoom);
  const std::size_t their = encodeRecord(*record, tables, 0, 0, theirs);
  const std::size_t our = encodeRecord(views_[index], tables_, 0, 0, ours);
  const bool same = their == our && std::memcmp(theirs.data(), ours.data(), our) == 0;
  explicit_bzero(theirs.data(), kRoom);
  explicit_bzero(ours.data(), kRoom);
  return same;
}

}  // namespace xfrmesh
