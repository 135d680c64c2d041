package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Config names a bucket.
type S3Config struct {
	// Endpoint is the service's URL, without a path.
	Endpoint             string
	Region, Bucket       string
	AccessKey, SecretKey string
	// Prefix stands before the names of all objects.
	Prefix string
	// PathStyle puts the bucket into the path of URLs instead of the host name.
	PathStyle bool
	// Transport reaches the service; nil: the usual one.
	Transport http.RoundTripper
}

// S3 is a Store in a bucket.
type S3 struct {
	client *minio.Client
	cfg    S3Config
}

// partSize is how much of an upload is held in memory: S3 wants to know how long a part is before it comes.
const partSize = 8 << 20

// OpenS3 makes a Store in a bucket. It does not reach for it yet.
func OpenS3(cfg S3Config) (*S3, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" {
		return nil, errors.New("the endpoint must be the URL of a host")
	}
	lookup := minio.BucketLookupAuto
	if cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, ""), Secure: u.Scheme == "https", Region: cfg.Region,
		Transport: cfg.Transport, BucketLookup: lookup,
	})
	if err != nil {
		return nil, fmt.Errorf("open S3: %w", err)
	}
	return &S3{c, cfg}, nil
}

func (s *S3) key(name string) string { return s.cfg.Prefix + name }

// Put implements Store. An object appears when all of it has come, in one request or in parts; parts of an upload that fails are given
// up.
func (s *S3) Put(ctx context.Context, name string, r io.Reader, size int64) (int64, error) {
	if err := check(name); err != nil {
		return 0, err
	}
	counted := &counter{r: withContext{ctx, r}}
	if size < 0 { // what is short needs no parts
		head := make([]byte, 64<<10)
		n, err := io.ReadFull(counted, head)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return s.put(ctx, name, &counter{r: &onlyReader{head[:n]}}, int64(n))
		case err != nil:
			return 0, fmt.Errorf("read what is to be stored: %w", err)
		}
		counted = &counter{r: io.MultiReader(&onlyReader{head}, withContext{ctx, r})}
	}
	return s.put(ctx, name, counted, size)
}

func (s *S3) put(ctx context.Context, name string, r *counter, size int64) (int64, error) {
	var in io.Reader = r
	if size >= 0 { // a reader that goes on is as wrong as one that ends
		in = io.LimitReader(r, size)
	}
	_, err := s.client.PutObject(ctx, s.cfg.Bucket, s.key(name), in, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partSize,
	})
	switch {
	case r.err != nil: // it is the cause, whatever came of it
		return r.n, fmt.Errorf("read what is to be stored: %w", r.err)
	case err != nil && size >= 0 && r.n < size && r.ended:
		return r.n, wrongSize(r.n, size)
	case err != nil:
		return r.n, fmt.Errorf("put object: %w", err)
	}
	if size >= 0 {
		if n, _ := r.Read(make([]byte, 1)); n > 0 {
			return r.n, errors.Join(wrongSize(r.n, size), s.Delete(context.WithoutCancel(ctx), name))
		}
	}
	return r.n, nil
}

// counter remembers what came of a reader.
type counter struct {
	r     io.Reader
	n     int64
	ended bool
	err   error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		c.ended = true
	case err != nil:
		c.err = err
	}
	return n, err
}

// onlyReader reads bytes and can nothing else: a reader that can seek is read by the client in ways of its own.
type onlyReader struct{ left []byte }

func (o *onlyReader) Read(p []byte) (int, error) {
	if len(o.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.left)
	o.left = o.left[n:]
	return n, nil
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, name string) (Blob, error) {
	if err := check(name); err != nil {
		return nil, err
	}
	info, err := s.client.StatObject(ctx, s.cfg.Bucket, s.key(name), minio.StatObjectOptions{})
	if err != nil {
		return nil, failed("look at object", name, err)
	}
	return &object{ctx: ctx, s3: s, name: name, size: info.Size}, nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	err := s.client.RemoveObject(ctx, s.cfg.Bucket, s.key(name), minio.RemoveObjectOptions{})
	if err = failed("delete object", name, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func failed(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	if code := minio.ToErrorResponse(err).Code; code == minio.NoSuchKey || code == "NotFound" {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// object is a Blob in a bucket: each reading after a seek is one request, from there on.
type object struct {
	ctx  context.Context
	s3   *S3
	name string
	size int64
	at   int64
	body io.ReadCloser // from at on; nil: not asked for yet
}

func (o *object) Size() int64 { return o.size }

func (o *object) Read(p []byte) (int, error) {
	if o.at >= o.size {
		return 0, io.EOF
	}
	if o.body == nil {
		opts := minio.GetObjectOptions{}
		if o.at > 0 {
			if err := opts.SetRange(o.at, 0); err != nil {
				return 0, fmt.Errorf("read object: %w", err)
			}
		}
		core := minio.Core{Client: o.s3.client}
		body, _, _, err := core.GetObject(o.ctx, o.s3.cfg.Bucket, o.s3.key(o.name), opts)
		if err != nil {
			return 0, failed("read object", o.name, err)
		}
		o.body = body
	}
	n, err := o.body.Read(p)
	o.at += int64(n)
	if errors.Is(err, io.EOF) && o.at < o.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return o.at, errors.New("seek before the beginning")
	}
	if offset != o.at {
		o.at = offset
		return offset, o.Close()
	}
	return offset, nil
}

func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	return err
}
