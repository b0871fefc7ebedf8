#!/usr/bin/env python3
"""An independent reader of infrahub-backup repositories, format 1, in a local folder.

It follows the text of format-spec/ page by page and shares no code with the program: it is slow and plain on purpose, and
restores when nothing else is left. It writes nothing into a repository.
"""
import argparse
import base64
import calendar
import collections
import hashlib
import hmac
import json
import os
import re
import stat
import struct
import sys
import zlib

import argon2.low_level
import blake3
import nacl.bindings
import nacl.exceptions
import nacl.signing
import zstandard

CHUNK_SIZE_MAX = 1 << 20
SEGMENT_SIZE_MAX = 2 << 20
SEGMENT_BASE_SIZE_MAX = 2 << 20
BASE_DEPTH_MAX = 4
SEGMENT_SEAL_OVERHEAD = 40
PACK_SIZE_MAX = 16 << 20
OBJECT_SIZE_MAX = 64 << 20
OBJECT_PLAIN_SIZE_MAX = 128 << 20
CLEAR_OBJECT_SIZE_MAX = 1 << 20
RECIPE_DEPTH_MAX = 4
RECIPE_INLINE_MAX = 64
TREE_PATH_SIZE_MAX = 4096
INDEX_CHUNKS_MAX = 1_000_000
GAP_SIZE_MAX = 1 << 20
PREFIX_SIZE_MAX = 64 << 10
META_CHUNK_SIZE_MIN = 1024
LEASE_PERIOD_MAX = 86400
SUITE = "blake3+zstd+xchacha20poly1305+hpke-x25519-hkdf-sha256+ed25519"
CONTENT_PACK, TREE_PACK, INDEX, MANIFEST, CONFIRM, MARK, LEASE, REPORT = range(1, 9)
FOLDERS = {"packs": CONTENT_PACK, "trees": TREE_PACK, "index": INDEX, "snapshots": MANIFEST, "confirms": CONFIRM,
           "marks": MARK, "leases": LEASE, "reports": REPORT}


class Failure(Exception):
    """Something is refused; `layer` says by which check."""

    def __init__(self, layer, problem):
        super().__init__(f"{layer} failure: {problem}")
        self.layer = layer


def need(condition, layer, problem):
    if not condition:
        raise Failure(layer, problem)


# ---- 00-conventions: fields, hexadecimal, JSON -----------------------------------------------------------------------

class Fields:
    def __init__(self, data, layer="decode"):
        self.data, self.at, self.layer = data, 0, layer

    def take(self, count):
        need(self.at + count <= len(self.data), self.layer, "it ends early")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def count(self, record_size):
        count = self.number("I")
        need(count * record_size <= len(self.data) - self.at, self.layer, "a count is more than the input holds")
        return count

    def end(self):
        need(self.at == len(self.data), self.layer, "bytes follow the end")


def unhex(text, size=None, layer="decode"):
    good = isinstance(text, str) and len(text) % 2 == 0 and all(c in "0123456789abcdef" for c in text)
    need(good and size in (None, len(text) // 2), layer, "it is not the expected hexadecimal text")
    return bytes.fromhex(text)


def parse_json(data):
    def once(pairs):
        need(len({key for key, _ in pairs}) == len(pairs), "decode", "a key stands twice")
        return dict(pairs)
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except ValueError as error:
        raise Failure("decode", "it is not JSON") from error
    need(isinstance(value, dict), "decode", "it is not a JSON object")
    return value


def check_fields(value, required, optional=()):
    need(isinstance(value, dict), "decode", "it is not a JSON object")
    missing, unknown = set(required) - set(value), set(value) - set(required) - set(optional)
    need(not missing and not unknown, "decode", f"fields are missing {sorted(missing)} or unknown {sorted(unknown)}")


# ---- the algorithms --------------------------------------------------------------------------------------------------

def aead_open(key, nonce, associated, sealed):
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Failure("decrypt", "it does not authenticate") from error


def verify_signed(public, repository, kind, body, signature):
    message = b"infrahub-backup 1 signed" + repository + bytes([kind]) + blake3.blake3(body).digest()
    try:
        nacl.signing.VerifyKey(public).verify(message, signature)
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Failure("signature", "the signature does not fit") from error


def decompress(frame, base, size_max):
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        need(size <= size_max, "decompress", "no content size, or one above its limit")
        prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None
        plain = zstandard.ZstdDecompressor(dict_data=prefix, max_window_size=1 << 27).decompress(
            frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Failure("decompress", "it is no valid zstd frame") from error
    need(len(plain) == size, "decompress", "it has another size than it says")
    return plain


def hkdf_expand(secret, info, length):
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(secret, block + info + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


class Hpke:
    """RFC 9180, base mode, receiver; DHKEM(X25519, HKDF-SHA256), HKDF-SHA256."""

    def __init__(self, secret, enc, info, aead, layer):
        def extract(suite, salt, label, ikm):
            return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()

        def expand(suite, prk, label, info, length):
            return hkdf_expand(prk, struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, length)
        try:
            shared = nacl.bindings.crypto_scalarmult(secret, enc)
        except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
            raise Failure(layer, "the encapsulated key is not valid") from error
        public = nacl.bindings.crypto_scalarmult_base(secret)
        kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01" + struct.pack(">H", aead)
        shared = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
        context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
        schedule = extract(suite, shared, b"secret", b"")
        self.key = expand(suite, schedule, b"key", context, 32)
        self.nonce = expand(suite, schedule, b"base_nonce", context, 12)
        exporter = expand(suite, schedule, b"exp", context, 32)
        self.export = lambda what, length: expand(suite, exporter, b"sec", what, length)

    def open(self, sealed):
        try:
            return nacl.bindings.crypto_aead_chacha20poly1305_ietf_decrypt(sealed, b"", self.nonce, self.key)
        except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
            raise Failure("decrypt", "the grant does not authenticate") from error


class Keys:
    def __init__(self, repository, id_key, metadata, content, certified):
        self.repository, self.id_key = repository, id_key
        self.metadata, self.content, self.certified = metadata, content, certified

    def chunk_id(self, plain):
        return blake3.blake3(plain, key=self.id_key).digest()


# ---- 02-envelope -----------------------------------------------------------------------------------------------------

def read_head(stored):
    fields = Fields(stored, "envelope")
    need(fields.take(4) == b"IHBK", "envelope", "it has another magic")
    need(fields.number("B") == 1, "envelope", "it has another version")
    kind = fields.number("B")
    need(1 <= kind <= 8, "envelope", "its type is not assigned")
    need(fields.number("H") == 0, "envelope", "its reserved field is not zero")
    generation = fields.number("I")
    fields.take(32)
    return kind, generation, stored[:44]


def derive(keys, generation, head):
    secret = keys.metadata.get(generation)
    need(secret is not None, "key", f"metadata key generation {generation} is not granted")
    out = blake3.blake3(b"infrahub-backup 1 object key" + keys.repository + head, key=secret).digest(length=88)
    return out[:32], out[32:56], out[56:]


def open_object(keys, kind, stored):
    found, generation, head = read_head(stored)
    need(found == kind, "envelope", f"it is of type {found} and not {kind}")
    need(len(stored) >= 76, "envelope", "it ends in its head")
    key, nonce, commitment = derive(keys, generation, head)
    need(hmac.compare_digest(commitment, stored[44:76]), "commitment", "the key commitment does not fit")
    frame = aead_open(key, nonce, keys.repository + head, stored[76:])
    plain = decompress(frame, b"", OBJECT_PLAIN_SIZE_MAX)
    need(len(plain) >= 96, "envelope", "it ends in its signature")
    signer, signature, body = plain[:32], plain[32:96], plain[96:]
    need(signer in keys.certified, "signature", "its signer is not certified")
    verify_signed(signer, keys.repository, kind, body, signature)
    return body


# ---- 04-pack ---------------------------------------------------------------------------------------------------------

class Pack:
    FOOTER_ORDINAL = 0xffffffff

    def __init__(self, keys, kind, stored):
        found, generation, head = read_head(stored)
        need(found == kind, "envelope", f"it is of type {found} and not {kind}")
        size = 108 if kind == CONTENT_PACK else 76
        need(len(stored) >= size, "envelope", "it ends in its head")
        if kind == CONTENT_PACK:
            secret = keys.content.get(generation)
            need(secret is not None, "key", f"content key generation {generation} is not granted")
            info = b"infrahub-backup 1 content pack" + keys.repository + head
            exported = Hpke(secret, stored[44:76], info, 0xffff, "commitment").export(b"pack", 64)
            self.key, commitment = exported[:32], exported[32:]
        else:
            self.key, _, commitment = derive(keys, generation, head)
        need(hmac.compare_digest(commitment, stored[size - 32:size]), "commitment", "the key commitment does not fit")
        self.stored, self.associated = stored, keys.repository + head

    def coded(self, ordinal, offset, length):
        sealed = self.stored[offset:offset + length]
        need(len(sealed) == length and length > SEGMENT_SEAL_OVERHEAD, "decrypt", "a segment is too short")
        associated = self.associated + struct.pack("<IQ", ordinal, offset)
        return aead_open(self.key, sealed[:24], associated, sealed[24:])

    def segment(self, ordinal, entry, base):
        coded = self.coded(ordinal, entry.offset, entry.stored_length)
        return self.decode(coded, base, entry.plain_length)

    @staticmethod
    def decode(coded, base, size_max):
        need(coded[0] in (0, 1), "decompress", "the coding is not assigned")
        plain = coded[1:] if coded[0] == 0 else decompress(coded[1:], base, size_max)
        need(size_max == OBJECT_PLAIN_SIZE_MAX or len(plain) == size_max, "decompress", "it has another size")
        return plain

    def footer(self):
        end = len(self.stored) - 4
        length = struct.unpack("<I", self.stored[end:])[0]
        need(length <= end, "decode", "the footer begins before the pack")
        coded = self.coded(self.FOOTER_ORDINAL, end - length, length)
        fields = Fields(self.decode(coded, b"", OBJECT_PLAIN_SIZE_MAX))
        segments = [Segment(fields) for _ in range(fields.count(18 + 36))]
        fields.end()
        check_places(segments, len(self.stored))
        return segments


# ---- 05-index --------------------------------------------------------------------------------------------------------

class Segment:
    def __init__(self, fields):
        self.kind, self.depth = fields.number("B"), fields.number("B")
        self.offset, self.stored_length = fields.number("I"), fields.number("I")
        self.base = [fields.take(32) for _ in range(fields.count(32))]
        ids = [fields.take(32) for _ in range(fields.count(36))]
        self.chunks = [(chunk_id, fields.number("I")) for chunk_id in ids]
        self.plain_length = sum(length for _, length in self.chunks)
        need(self.kind in (0, 1), "decode", "the segment kind is not assigned")
        need(all(length <= CHUNK_SIZE_MAX for _, length in self.chunks), "limit", "a chunk is too long")
        need(self.chunks and all(length for _, length in self.chunks), "decode", "a segment or chunk is empty")
        need(self.plain_length <= SEGMENT_SIZE_MAX, "limit", "a segment is too long")
        need(self.depth <= BASE_DEPTH_MAX, "limit", "a base is too deep")
        need(len(self.base) <= SEGMENT_BASE_SIZE_MAX // 64, "limit", "a base has too many chunks")
        need(self.offset + self.stored_length <= PACK_SIZE_MAX, "limit", "a segment ends too late")
        need(self.stored_length > SEGMENT_SEAL_OVERHEAD, "decode", "a segment holds no data")
        need((self.depth == 0) == (not self.base), "decode", "depth and base do not fit")


class PackEntry:
    def __init__(self, fields):
        self.id, self.kind, self.stored_size = fields.take(32), fields.number("B"), fields.number("I")
        need(self.kind in (CONTENT_PACK, TREE_PACK), "decode", "it describes no pack")
        self.segments = [Segment(fields) for _ in range(fields.count(18 + 36))]
        need(self.stored_size <= PACK_SIZE_MAX, "limit", "the pack is too long")
        check_places(self.segments, self.stored_size)


def check_places(segments, stored_size):
    end = 0
    for segment in segments:
        start, end = end, segment.offset + segment.stored_length
        need(segment.offset >= start and end <= stored_size, "decode", "a segment overlaps or leaves the pack")


def read_index(body):
    fields = Fields(body)
    need(fields.number("B") == 1, "decode", "it has another version")
    supersedes = [fields.take(32) for _ in range(fields.count(32))]
    packs = [PackEntry(fields) for _ in range(fields.count(32 + 9))]
    fields.end()
    chunks = sum(len(segment.chunks) for pack in packs for segment in pack.segments)
    need(chunks <= INDEX_CHUNKS_MAX, "limit", "it has too many chunks")
    return supersedes, packs


# ---- 08-deletion -----------------------------------------------------------------------------------------------------

def read_mark(body):
    value = parse_json(body)
    need(value.get("format") == 1, "decode", "it has another version")
    check_fields(value, "format number run created_at holder".split(),
                 "restated forgotten condemned doomed pardoned confirmed held released quarantined reinstated tagged".split())
    need(value["number"] > 0, "decode", "marks begin with 1")
    return value


def nanoseconds(time):
    """RFC 3339 in UTC with `Z` as nanoseconds since 1970."""
    date, _, fraction = time.rstrip("Z").partition(".")
    seconds = calendar.timegm(tuple(map(int, re.split("[-T:]", date))))
    return seconds * 10**9 + int((fraction + "0" * 9)[:9])


# ---- 06-manifest -----------------------------------------------------------------------------------------------------

def read_manifest(body):
    value = parse_json(body)
    need(value.get("format") == 1, "decode", "it has another version")
    check_fields(value, "format deployment created_at finished_at run lease_deadline host tool indexes components".split(),
                 ("previous", "infrahub_version", "tags"))
    layouts = {"plain": ("kind",), "tree": ("kind",), "neo4j-dump": ("kind", "container")}
    for component in value["components"]:
        check_fields(component, "name kind status consistency window layout streams sizes".split(),
                     ("failure", "version", "edition", "counts", "warnings"))
        check_fields(component["layout"], layouts.get(component["layout"].get("kind"), ()))
        need(component["status"] in ("complete", "partial", "failed"), "decode", "a status is not known")
        for stream in component["streams"]:
            check_fields(stream, ("name", "profile", "length", "root"))
            check_fields(stream["root"], ("depth", "chunks"))
            depth, chunks = stream["root"]["depth"], stream["root"]["chunks"]
            need(isinstance(depth, int) and isinstance(chunks, list), "decode", "a content root is not valid")
            need(check_root(depth, len(chunks)), "decode", "a content root breaks its limits")
            stream["root"] = (depth, [unhex(chunk, 32) for chunk in chunks])
    names = [component["name"] for component in value["components"]]
    need(len(set(names)) == len(names), "decode", "two components have one name")
    return value


def check_root(depth, count):
    return depth <= RECIPE_DEPTH_MAX and count <= RECIPE_INLINE_MAX and (count > 0 or depth == 0)


def read_frames(pieces):
    """Frames of a headers stream: gaps and the lengths of the data behind them."""
    buffer, done = b"", False
    for piece in pieces:
        buffer += piece
        while buffer:
            need(not done, "decode", "bytes follow the last frame")
            if len(buffer) < 4:
                break
            length = struct.unpack_from("<I", buffer)[0]
            need(length <= GAP_SIZE_MAX, "limit", "a gap is too long")
            if len(buffer) < 12 + length:
                break
            gap, data = buffer[4:4 + length], struct.unpack_from("<Q", buffer, 4 + length)[0]
            buffer, done = buffer[12 + length:], data == 0
            yield gap, data
    need(done and not buffer, "decode", "the frames end early")


MAGICS = {"dump-zstd": (b"DZV1", "zstd"), "dump-gzip": (b"DGV1", "gzip"), "legacy-zstd": (b"", "zstd"),
          "legacy-gzip": (b"", "gzip"), "backup-tar-v1": (b"BTV1", None), "backup-zstd-v1": (b"BZV1", "zstd"),
          "backup-tar-v2": (b"BTV2", None), "backup-zstd-v2": (b"BZV2", "zstd")}


def tar_of(headers, content):
    buffer, content = b"", iter(content)
    for gap, length in read_frames(headers):
        yield gap
        while length:
            buffer = buffer or next(content, b"")
            need(buffer, "decode", "the content ends before its frames")
            part, buffer = buffer[:length], buffer[length:]
            length -= len(part)
            yield part
    need(not buffer and not any(content), "decode", "the content goes on behind its frames")


def wrap(container, tar):
    need(container.get("kind") in MAGICS, "decode", "the kind of the container is not known")
    magic, compression = MAGICS[container["kind"]]
    yield magic
    prefix = unhex(container["prefix"])
    need(len(prefix) <= PREFIX_SIZE_MAX, "limit", "the header of the container is too long")
    if compression == "zstd":
        packer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    elif compression == "gzip":
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    else:
        packer = None
    for piece in [prefix]:
        yield packer.compress(piece) if packer else piece
    for piece in tar:
        yield packer.compress(piece) if packer else piece
    if packer:
        yield packer.flush()


# ---- 07-keys ---------------------------------------------------------------------------------------------------------

CONFIG, KEY_SLOT = 0x80, 0x81


def read_signed(stored, kind, root=None):
    """A clear object: its JSON, whose root signature was checked. Without `root` it is the one that it names itself."""
    need(stored.endswith(b"\n"), "decode", "it does not end with a line feed")
    body, _, signature = stored[:-1].partition(b"\n")
    signature = unhex(signature.decode("latin-1"), 64)
    value = parse_json(body)
    need(value.get("format") == 1, "decode", "it has another version")
    public = unhex(root if root is not None else value.get("root"), 32)
    verify_signed(public, unhex(value.get("repository"), 16), kind, body, signature)
    return value


def read_config(stored):
    config = read_signed(stored, CONFIG)
    unknown = [name for name in config.get("features", []) if name != "deletion"]
    need(isinstance(config.get("features"), list) and not unknown, "decode", f"unknown features {unknown}")
    need(config.get("suite") == SUITE, "decode", "its suite is not known")
    for profile in config["profiles"].values():
        least, target, most = (profile[name] for name in ("min", "avg", "max"))
        fits = 64 <= least <= target <= most <= CHUNK_SIZE_MAX and target >= 256 and most >= 1024
        even = all(size % 2 == 0 for size in (least, target, most))
        need(fits and even and 0 <= profile["level"] <= 3, "decode", "a profile is not valid")
    need(config["profiles"]["meta"]["min"] >= META_CHUNK_SIZE_MIN, "decode", "recipes would grow too deep")
    return config


def read_slot(config, stored):
    slot = read_signed(stored, KEY_SLOT, config["root"])
    need(slot["repository"] == config["repository"], "signature", "it belongs to another repository")
    check_fields(slot, "format repository slot version role label created_at public signer unlock grant".split())
    check_fields(slot["grant"], ("enc", "sealed"))
    shapes = {"passphrase": ("kind", "argon2id", "wrapped"), "key-file": ("kind", "wrapped"), "recipient": ("kind",),
              "removed": ("kind",)}
    check_fields(slot["unlock"], shapes.get(slot["unlock"].get("kind"), ()))
    need(slot["role"] in ("reader", "writer", "auditor"), "decode", "its role is not known")
    cost = slot["unlock"].get("argon2id")
    if cost:
        check_fields(cost, ("memory_kib", "passes", "lanes", "salt"))
        fits = 8192 <= cost["memory_kib"] <= 1 << 20 and 1 <= cost["passes"] <= 16 and 1 <= cost["lanes"] <= 16
        need(fits, "limit", "the Argon2id parameters are outside of their limits")
        unhex(cost["salt"], 16)
    return slot


def read_key_file(data):
    try:
        text = data.decode("utf-8")
    except ValueError as error:
        raise Failure("decode", "the key file is not text") from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    need(len(lines) == 1, "decode", "the key file does not hold one key")
    parts = lines[0].split(" ")
    need(len(parts) == 4 and parts[0] == "infrahub-backup-key-1", "decode", "the line is no key")
    try:
        key = base64.b64decode(parts[3], validate=True)
    except ValueError as error:
        raise Failure("decode", "the key is not base64") from error
    need(len(key) == 32, "decode", "the key is not 32 bytes")
    return unhex(parts[1], 16), unhex(parts[2], 16), key


BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_bytes(text, prefix):
    """BIP 173: the bytes behind `prefix`."""
    need(text in (text.lower(), text.upper()), "decode", "upper and lower case are mixed")
    text = text.lower()
    found, _, data = text.rpartition("1")
    need(found == prefix and len(data) >= 6 and all(c in BECH32 for c in data), "decode", "it is no key of this kind")
    values = [BECH32.index(c) for c in data]
    sum_of = 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values:
        top, sum_of = sum_of >> 25, (sum_of & 0x1ffffff) << 5 ^ value
        for bit, generator in enumerate((0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3)):
            sum_of ^= generator if top >> bit & 1 else 0
    need(sum_of == 1, "decode", "its checksum does not fit")
    number = 0
    for value in values[:-6]:
        number = number << 5 | value
    spare = len(values[:-6]) * 5 % 8
    need(spare < 5 and number & (1 << spare) - 1 == 0, "decode", "its last bits are not zero")
    return (number >> spare).to_bytes(len(values[:-6]) * 5 // 8, "big")


def read_identity(data):
    """The secret, and the trusted root of each repository."""
    secrets, roots = [], {}
    try:
        lines = [line.strip() for line in data.decode("utf-8").splitlines()]
    except ValueError as error:
        raise Failure("decode", "the identity is not text") from error
    for line in lines:
        if line.startswith("# infrahub-backup-root-1 "):
            parts = line.split(" ")
            need(len(parts) == 4, "decode", "a line that names a root is not valid")
            repository, root = unhex(parts[2], 16), unhex(parts[3], 32)
            need(roots.setdefault(repository, root) == root, "decode", "it names two roots for one repository")
        elif line and not line.startswith("#"):
            secrets.append(bech32_bytes(line, "age-secret-key-"))
    need(len(secrets) == 1 and len(secrets[0]) == 32, "decode", "it does not hold one key")
    return secrets[0], roots


def unlock(config, slots, passphrase=None, key_file=None, identity=None):
    repository = unhex(config["repository"], 16)
    need(key_file is None or key_file[0] == repository, "decrypt", "the key file belongs to another repository")
    newest = {}
    for slot in slots:
        if slot["slot"] not in newest or slot["version"] > newest[slot["slot"]]["version"]:
            newest[slot["slot"]] = slot
    for slot in newest.values():
        how, slot_id = slot["unlock"], unhex(slot["slot"], 16)
        if how["kind"] == "recipient" and identity is not None:
            if nacl.bindings.crypto_scalarmult_base(identity[0]) != unhex(slot["public"], 32):
                continue
            need(identity[1].get(repository) == unhex(config["root"], 32), "signature", "the identity trusts another root, or none")
            return open_grant(config, slots, slot, identity[0])
        if how["kind"] == "passphrase" and passphrase is not None:
            cost = how["argon2id"]
            key = argon2.low_level.hash_secret_raw(
                passphrase, unhex(cost["salt"]), cost["passes"], cost["memory_kib"], cost["lanes"], 32,
                argon2.low_level.Type.ID, 0x13)
        elif how["kind"] == "key-file" and key_file is not None and key_file[1] == slot_id:
            key = key_file[2]
        else:
            continue
        wrapped = unhex(how["wrapped"])
        try:
            plain = aead_open(key, wrapped[:24], b"infrahub-backup 1 slot" + repository + slot_id, wrapped[24:])
        except Failure:
            continue
        need(len(plain) == 64, "decrypt", "the slot's secret has another length")
        need(plain[32:] == unhex(config["root"], 32), "signature", "the config is signed by a root that this key does not trust")
        return open_grant(config, slots, slot, plain[:32])
    raise Failure("decrypt", "nothing opens with what was given")


def open_grant(config, slots, slot, secret):
    repository = unhex(config["repository"], 16)
    info = b"infrahub-backup 1 grant" + repository + unhex(slot["slot"], 16)
    plain = Hpke(secret, unhex(slot["grant"]["enc"]), info, 0x0003, "decrypt").open(unhex(slot["grant"]["sealed"]))
    grant = parse_json(plain)
    trusted = grant["repository"] == config["repository"] and grant["root_public"] == config["root"]
    need(trusted, "signature", "the grant is for another repository or root")

    def by_generation(keys):
        return {int(generation): base64.b64decode(key, validate=True) for generation, key in keys.items()}
    certified = {unhex(other["signer"], 32) for other in slots if other["role"] != "auditor"}
    return Keys(repository, base64.b64decode(grant["id_key"], validate=True), by_generation(grant["metadata"]),
                by_generation(grant.get("content", {})), certified)


# ---- 10-tree ---------------------------------------------------------------------------------------------------------

TreeEntry = collections.namedtuple("TreeEntry", "kind mode uid gid seconds nanoseconds path size root target")


def check_path(path, may_be_root):
    need(len(path) <= TREE_PATH_SIZE_MAX, "limit", "a path is too long")
    need(b"\0" not in path and (path or may_be_root), "decode", "a path is not valid")
    need(not path or all(part not in (b"", b".", b"..") for part in path.split(b"/")), "decode", "a path leaves the tree")


def read_tree(pieces):
    buffer, order = b"", TreeOrder()
    for piece in pieces:
        buffer += piece
        while True:
            fields = Fields(buffer, "more")
            try:
                entry = read_entry(fields)
            except Failure as failure:
                if failure.layer != "more":
                    raise
                break
            order.accept(entry)
            buffer = buffer[fields.at:]
            yield entry
    need(not buffer and order.previous is not None, "decode", "the tree ends early")


def read_entry(fields):
    kind = fields.number("B")
    need(1 <= kind <= 4, "decode", "a kind is not assigned")
    mode, uid, gid = fields.number("I"), fields.number("I"), fields.number("I")
    seconds, nanoseconds = fields.number("q"), fields.number("I")

    def text():
        size = fields.number("H")
        need(size <= TREE_PATH_SIZE_MAX, "limit", "a path is too long")
        return fields.take(size)
    path, size, root, target = text(), 0, None, None
    if kind == 1:
        size, depth, count = fields.number("Q"), fields.number("B"), fields.number("H")
        need(check_root(depth, count), "limit", "a content root breaks its limits")
        root = (depth, [fields.take(32) for _ in range(count)])
        need((size == 0) == (count == 0), "decode", "size and chunks do not fit")
    elif kind in (3, 4):
        target = text()
    check_path(path, True)
    need(mode & ~0o7777 == 0 and 0xffffffff not in (uid, gid) and nanoseconds < 10**9, "decode", "mode, owner or time")
    need(kind != 3 or (target and b"\0" not in target), "decode", "the target of a symbolic link is not valid")
    if kind == 4:
        check_path(target, False)
        need(target.replace(b"/", b"\0") < path.replace(b"/", b"\0"), "decode", "a hard link to a later name")
    return TreeEntry(kind, mode, uid, gid, seconds, nanoseconds, path, size, root, target)


class TreeOrder:
    def __init__(self):
        self.previous, self.directories = None, []

    def accept(self, entry):
        if self.previous is None:
            need(entry.path == b"" and entry.kind == 2, "decode", "the tree does not begin with its root folder")
        else:
            need(self.previous.replace(b"/", b"\0") < entry.path.replace(b"/", b"\0"), "decode", "the order is wrong")
            parent = entry.path.rpartition(b"/")[0]
            while self.directories and self.directories[-1] != parent:
                self.directories.pop()
            need(self.directories, "decode", "the directory of a path is missing")
        if entry.kind == 2:
            self.directories.append(entry.path)
        self.previous = entry.path


# ---- 01-layout: a repository in a folder -----------------------------------------------------------------------------

class Repository:
    PACKS_KEPT, SEGMENTS_KEPT = 4, 64

    def __init__(self, place, passphrase=None, key_file=None, identity=None):
        self.place = place
        numbers = [int(name) for name in self.names("config") if name.isdigit() and str(int(name)) == name]
        need(numbers, "decode", f"there is no repository in {place}")
        self.config = read_config(self.read(f"config/{max(numbers)}", CLEAR_OBJECT_SIZE_MAX))
        self.deletion = "deletion" in self.config["features"]
        need(self.config["generation"] == max(numbers), "decode", "the config has another number than its name")
        slots = []
        for name in self.names("keys"):
            try:
                slots.append(read_slot(self.config, self.named(f"keys/{name}", CLEAR_OBJECT_SIZE_MAX)))
            except (Failure, KeyError) as failure:
                print(f"keys/{name} is passed over: {failure}", file=sys.stderr)
        self.keys = unlock(self.config, slots, passphrase, key_file, identity)
        self.chunks, self.packs, self.segments = {}, collections.OrderedDict(), collections.OrderedDict()
        self.indexed = False

    def names(self, folder):
        path = os.path.join(self.place, folder)
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def read(self, name, size_max):
        with open(os.path.join(self.place, name), "rb") as file:
            stored = file.read(size_max + 1)
        need(len(stored) <= size_max, "limit", f"{name} is longer than {size_max} bytes")
        return stored

    def named(self, name, size_max):
        stored = self.read(name, size_max)
        need(blake3.blake3(stored).hexdigest() == name.rsplit("/", 1)[-1], "name", f"{name} is not what its name says")
        return stored

    def record(self):
        """08-deletion: what all marks say together."""
        numbers = sorted(int(name) for name in self.names("marks") if name.isdigit() and str(int(name)) == name)
        forgotten, confirmed, quarantined, expected = set(), set(), set(), 1
        for number in numbers:
            body = open_object(self.keys, MARK, self.read(f"marks/{number}", OBJECT_SIZE_MAX))
            mark = read_mark(body)
            need(mark["number"] == number, "name", f"marks/{number} says that it is mark {mark['number']}")
            if mark.get("restated"):
                forgotten, confirmed, quarantined = set(), set(), set()
            else:
                need(number == expected, "presence", f"mark {expected} is missing")
            expected = number + 1
            forgotten.update(mark.get("forgotten", ()))
            confirmed.update(mark.get("confirmed", ()))
            quarantined = quarantined - set(mark.get("reinstated", ())) | set(mark.get("quarantined", ()))
        return forgotten, confirmed, quarantined

    def manifests(self):
        """All snapshots that there are, oldest first; those that are late and not confirmed have the field `late`,
        those of which a part is lost `quarantined`."""
        forgotten, confirmed, quarantined = self.record()
        found = []
        for name in self.names("snapshots"):
            if name in forgotten:
                continue
            body = open_object(self.keys, MANIFEST, self.named(f"snapshots/{name}", OBJECT_SIZE_MAX))
            manifest = read_manifest(body)
            stored_at = os.stat(os.path.join(self.place, "snapshots", name)).st_mtime_ns
            after = stored_at > nanoseconds(manifest["lease_deadline"])
            manifest["late"] = self.deletion and after and name not in confirmed
            manifest["quarantined"] = name in quarantined
            found.append((name, manifest))
        return sorted(found, key=lambda pair: (pair[1]["created_at"].rstrip("Z"), pair[0]))

    def load_index(self):
        for name in self.names("index"):
            body = open_object(self.keys, INDEX, self.named(f"index/{name}", OBJECT_SIZE_MAX))
            for pack in read_index(body)[1]:
                for ordinal, segment in enumerate(pack.segments):
                    for chunk_id, _ in segment.chunks:
                        self.chunks.setdefault(chunk_id, []).append((pack, ordinal))
        self.indexed = True

    def pack(self, entry):
        if entry.id not in self.packs:
            name = entry.id.hex()
            folder = "packs" if entry.kind == CONTENT_PACK else "trees"
            stored = self.named(f"{folder}/{name[:2]}/{name}", PACK_SIZE_MAX)
            self.packs[entry.id] = Pack(self.keys, entry.kind, stored)
            if len(self.packs) > self.PACKS_KEPT:
                self.packs.popitem(last=False)
        return self.packs[entry.id]

    def segment(self, entry, ordinal, depth):
        place = (entry.id, ordinal)
        if place not in self.segments:
            segment = entry.segments[ordinal]
            need(segment.depth <= depth, "decode", "its bases are deeper than their description says")
            base = b"".join(self.chunk(chunk_id, segment.depth - 1) for chunk_id in segment.base)
            need(len(base) <= SEGMENT_BASE_SIZE_MAX, "limit", "a base is too long")
            plain = self.pack(entry).segment(ordinal, segment, base)
            self.segments[place] = split_chunks(self.keys, segment, plain)
            if len(self.segments) > self.SEGMENTS_KEPT:
                self.segments.popitem(last=False)
        return self.segments[place]

    def chunk(self, chunk_id, depth=BASE_DEPTH_MAX):
        if not self.indexed:
            self.load_index()
        last = Failure("chunk", f"chunk {chunk_id.hex()} is in no pack that an index names")
        for entry, ordinal in self.chunks.get(chunk_id, []):
            try:
                return self.segment(entry, ordinal, depth)[chunk_id]
            except (Failure, OSError) as failure:
                last = failure
        raise last

    def chunk_ids(self, depth, ids):
        if depth == 0:
            yield from ids
            return

        def below():
            rest = b""
            for chunk_id in ids:
                rest += self.chunk(chunk_id)
                whole = len(rest) // 32 * 32
                yield from (rest[at:at + 32] for at in range(0, whole, 32))
                rest = rest[whole:]
            need(not rest, "decode", "the length of a recipe is not a multiple of an id")
        yield from self.chunk_ids(depth - 1, below())

    def content(self, root, length):
        for chunk_id in self.chunk_ids(*root):
            plain = self.chunk(chunk_id)
            length -= len(plain)
            need(length >= 0, "decode", "a stream is longer than its record")
            yield plain
        need(length == 0, "decode", "a stream is shorter than its record")

    def component(self, snapshot, name):
        found = [manifest for known, manifest in self.manifests() if known.startswith(snapshot)]
        need(len(found) == 1, "decode", f"{snapshot} names {len(found)} snapshots")
        components = [component for component in found[0]["components"] if component["name"] == name]
        need(len(components) == 1, "decode", f"the snapshot has no component {name}")
        need(components[0]["status"] != "failed", "decode", "the component failed when it was backed up")
        return components[0]

    def stream(self, component, name):
        for stream in component["streams"]:
            if stream["name"] == name:
                return self.content(stream["root"], stream["length"])
        raise Failure("decode", f"there is no stream {name}")


def split_chunks(keys, segment, plain):
    chunks, at = {}, 0
    for chunk_id, length in segment.chunks:
        chunks[chunk_id] = plain[at:at + length]
        need(keys.chunk_id(chunks[chunk_id]) == chunk_id, "chunk", f"chunk {chunk_id.hex()} has another hash")
        at += length
    return chunks


# ---- the commands ----------------------------------------------------------------------------------------------------

def write_out(pieces):
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def command_list(repository, _):
    for name, manifest in repository.manifests():
        late = " late: not confirmed" if manifest["late"] else ""
        lost = " quarantined: a part of it is lost" if manifest["quarantined"] else ""
        print(f"{name} {manifest['created_at']} {manifest['deployment']}{late}{lost}")
        for component in manifest["components"]:
            streams = " ".join(f"{stream['name']}={stream['length']}" for stream in component["streams"])
            print(f"  {component['name']} {component['kind']} {component['status']} {layout_name(component)} {streams}")


def layout_name(component):
    return component["layout"]["kind"]


def command_stream(repository, options):
    write_out(repository.stream(repository.component(options.snapshot, options.component), options.stream))


def command_dump(repository, options):
    component = repository.component(options.snapshot, options.component)
    if layout_name(component) == "plain":
        return write_out(repository.stream(component, "content"))
    need(layout_name(component) == "neo4j-dump", "decode", "it is a folder: use `tree`")
    tar = tar_of(repository.stream(component, "headers"), repository.stream(component, "content"))
    return write_out(wrap(component["layout"]["container"], tar))


def command_tree(repository, options):
    component = repository.component(options.snapshot, options.component)
    need(layout_name(component) == "tree", "decode", "it is not a folder")
    target = os.fsencode(options.destination)
    os.mkdir(target, 0o700)
    directories = []
    for entry in read_tree(repository.stream(component, "tree")):
        path = os.path.join(target, entry.path) if entry.path else target
        if entry.kind == 1:
            with open(path, "xb") as file:
                for piece in repository.content(entry.root, entry.size):
                    file.write(piece)
        elif entry.kind == 2:
            if entry.path:
                os.mkdir(path, 0o700)
            directories.append((path, entry))
            continue
        elif entry.kind == 3:
            os.symlink(entry.target, path)
        else:
            first = os.path.join(target, entry.target)
            need(stat.S_ISREG(os.lstat(first).st_mode), "decode", "a hard link to something that is no file")
            os.link(first, path, follow_symlinks=False)
            continue
        set_meta(path, entry)
    for path, entry in reversed(directories):
        set_meta(path, entry)


def set_meta(path, entry):
    if os.geteuid() == 0:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != 3:
        os.chmod(path, entry.mode)
    moment = entry.seconds * 10**9 + entry.nanoseconds
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


def command_check(place):
    good, bad, config = 0, 0, None
    for folder in ["config", "keys"] + list(FOLDERS):
        for parent, _, files in sorted(os.walk(os.path.join(place, folder))):
            for name in sorted(files):
                path = os.path.join(parent, name)
                try:
                    with open(path, "rb") as file:
                        config = check_stored(folder, os.path.relpath(path, place), file.read(), config) or config
                    good += 1
                except (Failure, KeyError, ValueError) as failure:
                    print(f"{os.path.relpath(path, place)}: {failure}")
                    bad += 1
    if config is None:
        print("decode failure: there is no config that can be read")
        bad += 1
    print(f"{good} objects are what their names say, {bad} are not")
    return bad == 0


def check_stored(folder, name, stored, config):
    """Checks one object without any key; gives a config if it is one."""
    last = name.rsplit("/", 1)[-1]
    if folder == "config":
        found = read_config(stored)
        need(str(found["generation"]) == last, "name", "it is another generation")
        return found if config is None or found["generation"] > config["generation"] else None
    if folder not in ("leases", "marks"):
        need(blake3.blake3(stored).hexdigest() == last, "name", "it does not hash to its name")
    if folder == "keys":
        need(config is not None, "decode", "there is no config")
        read_slot(config, stored)
        return None
    need(read_head(stored)[0] == FOLDERS[folder], "envelope", "it is of another type than its folder")
    spread = name == f"{folder}/{last[:2]}/{last}" if folder in ("packs", "trees") else True
    need(spread, "name", "it stands in the folder of other names")
    return None


# ---- the vectors -----------------------------------------------------------------------------------------------------

def run_vector(vector, data):
    def keys():
        content = {1: unhex(vector["content-secret"][0])} if "content-secret" in vector else {}
        return Keys(unhex(vector["repository"][0]), unhex(vector["id-key"][0]), {1: unhex(vector["metadata-key"][0])},
                    content, {unhex(vector["signer-public"][0])})

    def same(found, field):
        need(found == vector[field][0], "comparison", f"{field} is {found}")

    def segments(known, pack, entries):
        given = {known.chunk_id(plain): plain for plain in map(unhex, vector.get("base-chunk", []))}
        for ordinal, segment in enumerate(entries):
            base = b"".join(given[chunk_id] for chunk_id in segment.base)
            split_chunks(known, segment, pack.segment(ordinal, segment, base))
    kind = vector["kind"][0]
    if kind == "head":
        read_head(data)
    elif kind == "object":
        same(open_object(keys(), int(vector["type"][0]), data).hex(), "body")
    elif kind == "content pack":
        entry, known = PackEntry(Fields(unhex(vector["entry"][0]))), keys()
        pack = Pack(known, CONTENT_PACK, data)
        need(blake3.blake3(data).digest() == entry.id, "name", "it does not hash to its name")
        segments(known, pack, entry.segments)
    elif kind == "tree pack":
        known = keys()
        pack = Pack(known, TREE_PACK, data)
        segments(known, pack, pack.footer())
    elif kind == "index":
        read_index(data)
    elif kind == "tree":
        collections.deque(read_tree([data[:7], data[7:]]), maxlen=0)
    elif kind == "config":
        read_config(data)
    elif kind == "key slot":
        config = read_config(unhex(vector["config"][0]))
        slot = read_slot(config, data)
        passphrase = vector["passphrase"][0].encode() if "passphrase" in vector else None
        key_file = read_key_file(unhex(vector["key-file"][0])) if "key-file" in vector else None
        identity = read_identity(unhex(vector["identity"][0])) if "identity" in vector else None
        same(unlock(config, [slot], passphrase, key_file, identity).chunk_id(b"chunk").hex(), "id-of-chunk")
    elif kind == "key file":
        same(read_key_file(data)[2].hex(), "key")
    elif kind == "identity file":
        secret, roots = read_identity(data)
        same(secret.hex(), "key")
        same(roots[unhex(vector["repository"][0])].hex(), "root")
    elif kind == "manifest":
        read_manifest(data)
    elif kind == "lease":
        need(parse_json(data).get("format") == 1, "decode", "it has another version")
        check_fields(parse_json(data), "format run operation number created_at period_seconds holder".split())
        need(parse_json(data)["period_seconds"] <= LEASE_PERIOD_MAX, "limit", "it holds for too long")
    elif kind == "mark":
        read_mark(data)
    elif kind == "report":
        need(parse_json(data).get("format") == 1, "decode", "it has another version")
    elif kind == "neo4j frames":
        same(" ".join(f"{len(gap)}+{length}" for gap, length in read_frames([data])), "frames")
    elif kind == "cut":
        profile = [int(number) for number in vector["profile"][0].split()]
        seed = blake3.blake3(unhex(vector["id-key"][0]), derive_key_context="infrahub-backup 1 cut seed").digest()[:8]
        same(f"{int.from_bytes(seed, 'little'):016x}", "cut-seed")
        same(" ".join(map(str, cut(data, int.from_bytes(seed, "little"), *profile))), "lengths")
    else:
        raise Failure("comparison", f"kind {kind} is not known")


def cut(data, seed, least, target, most, level):
    """03-chunking. No reader needs it; it is here to check the text."""
    numbers = {"gear": [], "mask": []}
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "03-chunking-gear.txt"), encoding="ascii") as file:
        for line in file:
            if line.split()[:1] in (["gear"], ["mask"]):
                numbers[line.split()[0]].append(int(line.split()[2], 16))
    bits = round_log2(target)
    strict, relaxed = numbers["mask"][bits + level], numbers["mask"][bits - level]
    while data:
        window = data[:most]
        length = len(window)
        if length > least:
            centre, value = min(target, length) // 2 * 2, 0
            for at in range(least, length // 2 * 2):
                value = ((value << 1) + (numbers["gear"][window[at]] ^ seed)) & 0xffffffffffffffff
                if value & (strict if at < centre else relaxed) == 0:
                    length = at
                    break
        yield length
        data = data[length:]


def round_log2(number):
    low = number.bit_length() - 1
    return low + (number * number >= 1 << (2 * low + 1))


def command_vectors(folder):
    passed = failed = 0
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".txt")):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            head, _, body = file.read().partition("\n\n")
        vector = collections.defaultdict(list)
        for line in head.splitlines():
            key, _, value = line.partition(": ")
            vector[key].append(value)
        try:
            run_vector(dict(vector), bytes.fromhex(body))
            outcome = "success"
        except Failure as failure:
            outcome = f"{failure.layer} failure"
            if failure.layer == "comparison":
                outcome += f" ({failure})"
        if outcome == vector["expect"][0]:
            passed += 1
        else:
            failed += 1
            print(f"{name}: expected {vector['expect'][0]}, got {outcome}")
    print(f"{passed} passed, {failed} failed")
    return failed == 0


def main():
    parser = argparse.ArgumentParser(description="reads infrahub-backup repositories of format 1 from a local folder")
    commands = parser.add_subparsers(dest="command", required=True)
    shapes = {"list": [], "stream": ["snapshot", "component"], "dump": ["snapshot", "component"],
              "tree": ["snapshot", "component", "destination"], "check": None, "vectors": None}
    for name, arguments in shapes.items():
        command = commands.add_parser(name)
        command.add_argument("place")
        for argument in arguments or []:
            command.add_argument(argument)
        if arguments is not None:
            credential = command.add_mutually_exclusive_group(required=True)
            credential.add_argument("--key-file")
            credential.add_argument("--identity")
            credential.add_argument("--password-file")
        if name == "stream":
            command.add_argument("--stream", default="content")
    options = parser.parse_args()
    try:
        if options.command in ("check", "vectors"):
            run = command_check if options.command == "check" else command_vectors
            sys.exit(0 if run(options.place) else 1)
        passphrase = key_file = identity = None
        if options.key_file:
            with open(options.key_file, "rb") as file:
                key_file = read_key_file(file.read())
        elif options.identity:
            with open(options.identity, "rb") as file:
                identity = read_identity(file.read())
        else:
            with open(options.password_file, "rb") as file:
                passphrase = file.read()
            if passphrase.endswith(b"\n"):
                passphrase = passphrase[:-2] if passphrase.endswith(b"\r\n") else passphrase[:-1]
        repository = Repository(options.place, passphrase, key_file, identity)
        run = {"list": command_list, "stream": command_stream, "dump": command_dump, "tree": command_tree}
        run[options.command](repository, options)
    except (Failure, OSError, KeyError, TypeError, ValueError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
