// A batch of records as a commit takes it.
#pragma once

#include <vector>

#include "netlink/exchange.h"
#include "xfrm/encode.h"
#include "xfrm/identity.h"

namespace xfrmesh {

class XfrmBatch final : public Batch {
 public:
  // `records` must outlive the batch.
  XfrmBatch(Bytes records, Tables tables) : records_(records), tables_(std::move(tables)) {}

  bool parse() override;

  [[nodiscard]] std::uint32_t size() const override { return static_cast<std::uint32_t>(starts_.size()); }
  std::size_t encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                     std::span<std::byte> room) override;
  [[nodiscard]] std::uint64_t identity(std::uint32_t index) const override { return identityOf(record(index)); }
  [[nodiscard]] Recovery recovery(std::uint32_t index) const override;
  std::size_t encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) override;
  // Of an addition: whether the object is what was to be added. A key that the kernel withholds (lockdown) passes for
  // the right one; an algorithm added by another name of its own ("sha256") does not, because the kernel shows its own
  // ("hmac(sha256)"). Of a deletion: whether it bears the very mark, and not one whose mask takes in the mark given.
  bool confirms(std::uint32_t index, const Message& answer) override;

 private:
  [[nodiscard]] RecordView record(std::uint32_t index) const { return viewAt(records_, starts_[index]); }

  Bytes records_;
  Tables tables_;
  std::vector<std::uint32_t> starts_;
};

}  // namespace xfrmesh
