// Records of neighbours to messages and back; no kernel.
#include <arpa/inet.h>
#include <linux/rtnetlink.h>

#include <array>
#include <set>

#include "route/batch.h"
#include "route/decode.h"
#include "route/encode.h"
#include "test/check.h"
#include "test/neighbour_records.h"

namespace xfrmesh::test {
namespace {

constexpr std::int32_t kLink = 7;

std::array<std::byte, 256> room{};

Message encoded(const NeighbourRecord& record) {
  Bytes bytes = Bytes(room).first(encodeNeighbour(record, 0, 1, room));
  Message message{};
  CHECK(takeMessage(bytes, message));
  CHECK(bytes.empty());
  return message;
}

// What a decoder makes of the message of a record.
std::vector<std::byte> throughAMessage(const NeighbourRecord& record, std::int32_t link = 0) {
  NeighbourDecoder decoder(link);
  CHECK(decoder.decode(encoded(record)));
  return decoder.records();
}

std::vector<std::byte> only(const NeighbourRecord& record) { return NeighbourRecords().add(record).bytes(); }

bool isTaken(const NeighbourRecord& record) {
  const std::vector<std::byte> bytes = only(record);
  Bytes rest = bytes;
  return takeNeighbour(rest).has_value() && rest.empty();
}

}  // namespace

TEST(neighbour_records_come_back_from_their_messages_as_they_were) {
  const NeighbourRecord plain = fdbEntry(NeighbourOperation::kSet, kLink, 1);
  CHECK(throughAMessage(plain) == only(plain));
  NeighbourRecord whole = plain;
  whole.given = kGivenAll;
  whole.port = 8472;
  whole.vni = 77;
  whole.interfaceTo = 3;
  whole.nexthop = 4;
  whole.destinationFamily = AF_INET6;
  for (std::uint8_t i = 0; i < 16; i++) whole.destination[i] = i;
  CHECK(throughAMessage(whole) == only(whole));
  const NeighbourRecord entry = neighbour(NeighbourOperation::kSet, kLink, 1);
  CHECK(throughAMessage(entry) == only(entry));
}

TEST(neighbour_message_is_what_the_kernel_calls_by_that_name) {
  NeighbourRecord record = fdbEntry(NeighbourOperation::kSet, kLink, 1);
  const Message set = encoded(record);
  CHECK_EQ(set.header.nlmsg_type, RTM_NEWNEIGH);
  CHECK_EQ(set.header.nlmsg_flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE);
  const auto head = load<ndmsg>(set.payload);
  CHECK_EQ(head.ndm_family, AF_BRIDGE);
  CHECK_EQ(head.ndm_ifindex, kLink);
  CHECK_EQ(head.ndm_state, NUD_PERMANENT);
  CHECK_EQ(head.ndm_flags, NTF_SELF);
  record.operation = NeighbourOperation::kDelete;
  const Message gone = encoded(record);
  CHECK_EQ(gone.header.nlmsg_type, RTM_DELNEIGH);
  CHECK_EQ(gone.header.nlmsg_flags, NLM_F_REQUEST);
  record.given |= kGivenPort;
  record.port = 8472;
  Bytes rest = encoded(record).payload.subspan(sizeof(ndmsg));
  Attribute attribute{};
  std::uint16_t port = 0;
  while (takeAttribute(rest, attribute)) {
    if (attribute.type == NDA_PORT) port = load<std::uint16_t>(attribute.payload);
  }
  CHECK_EQ(ntohs(port), 8472);
}

TEST(neighbour_record_that_is_none_is_refused) {
  const NeighbourRecord good = neighbour(NeighbourOperation::kSet, kLink, 1);
  CHECK(isTaken(good));
  for (const auto& spoil : std::initializer_list<void (*)(NeighbourRecord&)>{
           [](NeighbourRecord& r) { r.length = 48; },
           [](NeighbourRecord& r) { r.length = 64; },
           [](NeighbourRecord& r) { r.operation = static_cast<NeighbourOperation>(0); },
           [](NeighbourRecord& r) { r.operation = static_cast<NeighbourOperation>(3); },
           [](NeighbourRecord& r) { r.family = 0; },
           [](NeighbourRecord& r) { r.family = AF_INET6; },
           [](NeighbourRecord& r) { r.destinationFamily = 0; },
           [](NeighbourRecord& r) { r.given = 32; },
       }) {
    NeighbourRecord bad = good;
    spoil(bad);
    CHECK(!isTaken(bad));
    const std::vector<std::byte> bytes = NeighbourRecords().add(good).add(bad).bytes();
    CHECK(!NeighbourBatch(bytes).parse());
  }
  NeighbourRecord fdb = fdbEntry(NeighbourOperation::kDelete, kLink, 1);
  fdb.destinationFamily = 0;
  CHECK(isTaken(fdb));
  const std::vector<std::byte> whole = only(good);
  Bytes cut = Bytes(whole).first(kNeighbourBytes - 1);
  CHECK(!takeNeighbour(cut));
}

TEST(neighbour_message_that_does_not_fit_is_none) {
  const NeighbourRecord record = neighbour(NeighbourOperation::kSet, kLink, 1);
  const std::size_t size = encodeNeighbour(record, 0, 1, room);
  CHECK(size != 0);
  CHECK_EQ(encodeNeighbour(record, 0, 1, std::span(room).first(size - 1)), std::size_t{0});
}

TEST(neighbour_decoder_passes_over_what_is_not_the_links) {
  CHECK(throughAMessage(fdbEntry(NeighbourOperation::kSet, kLink + 1, 1), kLink).empty());
  CHECK(!throughAMessage(fdbEntry(NeighbourOperation::kSet, kLink, 1), kLink).empty());
  NeighbourRecord ofBridge = fdbEntry(NeighbourOperation::kSet, kLink, 1);
  ofBridge.flags = NTF_MASTER;
  CHECK(throughAMessage(ofBridge).empty());
  NeighbourRecord deletion = fdbEntry(NeighbourOperation::kDelete, kLink, 1);
  CHECK(throughAMessage(deletion).empty());
}

TEST(neighbour_message_that_is_malformed_is_refused) {
  const auto decodes = [](std::uint16_t type, Bytes attributes, std::size_t head = sizeof(ndmsg)) {
    ndmsg entry{};
    entry.ndm_family = AF_INET;
    MessageWriter writer(room, type, 0, 1);
    writer.append(bytesOf(entry).first(head));
    writer.append(attributes);
    Bytes bytes = Bytes(room).first(writer.finish());
    Message message{};
    return takeMessage(bytes, message) && NeighbourDecoder().decode(message);
  };
  const std::array<std::uint16_t, 4> address{8, NDA_DST, 10, 1};
  CHECK(decodes(RTM_NEWNEIGH, bytesOf(address)));
  CHECK(!decodes(RTM_NEWNEIGH, {}));
  CHECK(!decodes(RTM_NEWNEIGH, bytesOf(address), sizeof(ndmsg) - 4));
  const std::array<std::uint16_t, 4> tooLong{12, NDA_DST, 10, 1};
  CHECK(!decodes(RTM_NEWNEIGH, bytesOf(tooLong)));
  const std::array<std::uint16_t, 6> ofNoFamily{12, NDA_DST, 10, 1, 0, 0};
  CHECK(!decodes(RTM_NEWNEIGH, bytesOf(ofNoFamily)));
  // Of an attribute given twice the last one counts, and nothing of the first is left.
  const std::array<std::uint16_t, 14> twice{20, NDA_DST, 1, 2, 3, 4, 5, 6, 7, 8, 8, NDA_DST, 10, 1};
  ndmsg entry{};
  entry.ndm_family = AF_INET;
  MessageWriter writer(room, RTM_NEWNEIGH, 0, 1);
  writer.append(bytesOf(entry));
  writer.append(bytesOf(twice));
  Bytes written = Bytes(room).first(writer.finish());
  Message message{};
  NeighbourDecoder decoder;
  CHECK(takeMessage(written, message) && decoder.decode(message));
  CHECK_EQ(load<NeighbourRecord>(decoder.records()).destination[4], 0);
  const std::array<std::uint16_t, 8> shortVni{8, NDA_DST, 10, 1, 6, NDA_VNI, 1, 0};
  CHECK(!decodes(RTM_NEWNEIGH, bytesOf(shortVni)));
  CHECK(decodes(RTM_NEWLINK, {}));
}

TEST(neighbour_operations_on_one_entry_have_one_identity) {
  NeighbourRecords records;
  records.add(fdbEntry(NeighbourOperation::kSet, kLink, 1, 1));
  records.add(fdbEntry(NeighbourOperation::kDelete, kLink, 1, 2));
  records.add(neighbour(NeighbourOperation::kSet, kLink, 1));
  NeighbourRecord elsewhere = neighbour(NeighbourOperation::kDelete, kLink, 1);
  elsewhere.linkAddress[5]++;
  records.add(elsewhere);
  NeighbourBatch batch(records.bytes());
  CHECK(batch.parse());
  CHECK_EQ(batch.size(), 4U);
  CHECK_EQ(batch.identity(0), batch.identity(1));
  CHECK_EQ(batch.identity(2), batch.identity(3));
  CHECK(batch.identity(0) != batch.identity(2));
  CHECK(batch.recovery(0) == Batch::Recovery::kRepeat);
  CHECK(batch.recovery(1) == Batch::Recovery::kRepeatIfThere);
  NeighbourRecords many;
  std::set<std::uint64_t> identities;
  constexpr std::uint32_t kMany = 1000;
  for (std::uint32_t i = 0; i < kMany; i++) {
    many.add(fdbEntry(NeighbourOperation::kSet, kLink, i));
    many.add(fdbEntry(NeighbourOperation::kSet, kLink + 1, i));
    many.add(neighbour(NeighbourOperation::kSet, kLink, i));
  }
  NeighbourBatch all(many.bytes());
  CHECK(all.parse());
  for (std::uint32_t i = 0; i < all.size(); i++) identities.insert(all.identity(i));
  CHECK_EQ(identities.size(), std::size_t{3} * kMany);
}

TEST(neighbour_deletion_is_confirmed_by_the_entry_that_it_means) {
  const auto confirms = [](const NeighbourRecord& deletion, NeighbourRecord shown) {
    const std::vector<std::byte> records = only(deletion);
    NeighbourBatch batch(records);
    CHECK(batch.parse());
    shown.operation = NeighbourOperation::kSet;
    return batch.confirms(0, encoded(shown));
  };
  const NeighbourRecord deletion = fdbEntry(NeighbourOperation::kDelete, kLink, 1);
  CHECK(confirms(deletion, deletion));
  CHECK(!confirms(deletion, fdbEntry(NeighbourOperation::kSet, kLink, 1, 2)));
  NeighbourRecord byPort = deletion;
  byPort.given |= kGivenPort;
  byPort.port = 1;
  CHECK(!confirms(deletion, byPort));
  NeighbourRecord anyWay = deletion;
  anyWay.destinationFamily = 0;
  CHECK(confirms(anyWay, byPort));
  NeighbourRecord elsewhere = neighbour(NeighbourOperation::kSet, kLink, 1);
  elsewhere.linkAddress[5]++;
  CHECK(confirms(neighbour(NeighbourOperation::kDelete, kLink, 1), elsewhere));
}

}  // namespace xfrmesh::test
