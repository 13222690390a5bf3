import jakarta.mail.Address;
import jakarta.mail.MessagingException;
import jakarta.mail.Session;
import jakarta.mail.Transport;
import jakarta.mail.internet.InternetAddress;
import jakarta.mail.internet.MimeMessage;
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Properties;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** A program that sends the message on its standard input with Jakarta Mail: see clients.py for its arguments. */
public class JakartaMail {
    public static void main(String[] arguments) throws Exception {
        String security = arguments[2];
        String username = arguments[3];
        Properties settings = new Properties();
        settings.put("mail.smtp.host", arguments[0]);
        settings.put("mail.smtp.port", arguments[1]);
        settings.put("mail.smtp.from", arguments[5]);
        settings.put("mail.smtp.sendpartial", "true");
        settings.put("mail.smtp.starttls.required", security.equals("starttls"));
        settings.put("mail.smtp.ssl.enable", security.equals("implicit"));
        settings.put("mail.smtp.ssl.checkserveridentity", "true");
        settings.put("mail.smtp.chunksize", arguments[7]);
        if (!security.equals("none")) {
            settings.put("mail.smtp.ssl.socketFactory", trusting(System.getenv("SSL_CERT_FILE")).getSocketFactory());
        }
        Session session = Session.getInstance(settings);
        Address[] recipients = InternetAddress.parse(arguments[6]);
        try (Transport transport = session.getTransport("smtp")) {
            if (username.isEmpty()) {
                transport.connect();
            } else {
                transport.connect(username, arguments[4]);
            }
            transport.sendMessage(new MimeMessage(session, System.in), recipients);
        } catch (MessagingException error) {
            for (Exception each = error; each != null; each = next(each)) {
                System.out.println(each.getClass().getSimpleName() + ": " + each.getMessage().strip());
            }
            System.exit(1);
        }
    }

    private static Exception next(Exception error) {
        return error instanceof MessagingException messaging ? messaging.getNextException() : null;
    }

    private static SSLContext trusting(String file) throws Exception {
        KeyStore authorities = KeyStore.getInstance(KeyStore.getDefaultType());
        authorities.load(null, null);
        try (FileInputStream pem = new FileInputStream(file)) {
            authorities.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(authorities);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
